// Reads events for PagerDuty's Events API v2, one a line, as PagerDuty's own library has them: what it does not know is
// an error. Writes what it read, one a line.
package main

import (
	"encoding/json"
	"errors"
	"io"
	"log"
	"os"

	"github.com/PagerDuty/go-pagerduty"
)

func main() {
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	in.DisallowUnknownFields()
	for {
		var event pagerduty.V2Event
		if err := in.Decode(&event); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			log.Fatal(err)
		}
		if err := out.Encode(event); err != nil {
			log.Fatal(err)
		}
	}
}
