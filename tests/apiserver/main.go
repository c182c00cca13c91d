// Sends audit events with the code that kube-apiserver sends them with: its buffered backend in front of its webhook
// backend, client-go's retries included. Events come on standard input, one a line in audit.k8s.io/v1; at its end the
// backends are shut down as an API server does, and what their own counters say goes to standard output:
//
//	{"recorded":1000,"errors":{"buffered":0,"webhook":400}}
//
// Which events an error cost stands in the log on standard error, in the words of the API server.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/apiserver/plugin/pkg/audit/buffered"
	pluginwebhook "k8s.io/apiserver/plugin/pkg/audit/webhook"
	"k8s.io/component-base/metrics/legacyregistry"
)

// As long as the line of the largest event an API server sends by default.
const longestLine = 10 << 20

func main() {
	// The flags of kube-apiserver, named after --audit-webhook-….
	kubeconfig := flag.String("config-file", "", "kubeconfig that names the receiver")
	backoff := flag.Duration("initial-backoff", 10*time.Second, "wait before the first retry")
	// The defaults of kube-apiserver, from its pkg/server/options.
	config := buffered.BatchConfig{
		BufferSize: 10000, MaxBatchSize: 400, MaxBatchWait: 30 * time.Second,
		ThrottleEnable: true, ThrottleQPS: 10, ThrottleBurst: 15, AsyncDelegate: true,
	}
	flag.IntVar(&config.MaxBatchSize, "batch-max-size", config.MaxBatchSize, "largest batch")
	flag.DurationVar(&config.MaxBatchWait, "batch-max-wait", config.MaxBatchWait, "longest wait for a batch to fill")
	flag.Parse()
	if err := send(*kubeconfig, *backoff, config); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func send(kubeconfig string, backoff time.Duration, config buffered.BatchConfig) error {
	hook, err := pluginwebhook.NewBackend(
		kubeconfig, auditv1.SchemeGroupVersion, webhook.DefaultRetryBackoffWithInitialDelay(backoff), nil)
	if err != nil {
		return err
	}
	backend := buffered.NewBackend(hook, config)
	stop := make(chan struct{})
	if err := backend.Run(stop); err != nil {
		return err
	}
	decoder := audit.Codecs.UniversalDecoder(auditinternal.SchemeGroupVersion)
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, longestLine)
	for lines.Scan() {
		event := &auditinternal.Event{}
		if err := runtime.DecodeInto(decoder, lines.Bytes(), event); err != nil {
			return err
		}
		audit.ObserveEvent(context.Background())
		backend.ProcessEvents(event)
	}
	if err := lines.Err(); err != nil {
		return err
	}
	close(stop)
	backend.Shutdown()
	return tell()
}

// tell prints the two counters that completeness.apiServers reads from a real API server.
func tell() error {
	families, err := legacyregistry.DefaultGatherer.Gather()
	if err != nil {
		return err
	}
	counts := struct {
		Recorded float64            `json:"recorded"`
		Errors   map[string]float64 `json:"errors"`
	}{Errors: map[string]float64{}}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			switch family.GetName() {
			case "apiserver_audit_event_total":
				counts.Recorded += metric.GetCounter().GetValue()
			case "apiserver_audit_error_total":
				counts.Errors[metric.GetLabel()[0].GetValue()] += metric.GetCounter().GetValue()
			}
		}
	}
	return json.NewEncoder(os.Stdout).Encode(counts)
}
