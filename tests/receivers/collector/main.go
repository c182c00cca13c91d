// An OpenTelemetry Collector of its own published parts: the receivers of Splunk HEC, Loki and OTLP, and an exporter that
// writes what they understood to a directory. Takes the arguments of any collector: --config FILE.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/open-telemetry/opentelemetry-collector-contrib/extension/ackextension"
	"github.com/open-telemetry/opentelemetry-collector-contrib/extension/bearertokenauthextension"
	"github.com/open-telemetry/opentelemetry-collector-contrib/receiver/lokireceiver"
	"github.com/open-telemetry/opentelemetry-collector-contrib/receiver/splunkhecreceiver"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/confmap/provider/fileprovider"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/extension"
	"go.opentelemetry.io/collector/otelcol"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
	"go.opentelemetry.io/collector/service/telemetry/otelconftelemetry"
)

// kept writes what each request was understood as into a file of its own, as OTLP JSON, before the receiver answers.
type kept struct {
	component.StartFunc
	component.ShutdownFunc
	plog.JSONMarshaler
	directory string
}

type keptConfig struct {
	Directory string `mapstructure:"directory"`
}

func (*kept) Capabilities() consumer.Capabilities { return consumer.Capabilities{} }

func (k *kept) ConsumeLogs(_ context.Context, logs plog.Logs) error {
	request, err := k.MarshalLogs(logs)
	if err != nil {
		return err
	}
	// Whole or not at all, however this process ends.
	name := filepath.Join(k.directory, fmt.Sprintf("%020d", time.Now().UnixNano()))
	if err := os.WriteFile(name+".part", request, 0o600); err != nil {
		return err
	}
	return os.Rename(name+".part", name+".json")
}

func keptFactory() exporter.Factory {
	create := func(_ context.Context, _ exporter.Settings, config component.Config) (exporter.Logs, error) {
		return &kept{directory: config.(*keptConfig).Directory}, nil
	}
	return exporter.NewFactory(component.MustNewType("kept"),
		func() component.Config { return &keptConfig{} },
		exporter.WithLogs(create, component.StabilityLevelStable))
}

func factories() (otelcol.Factories, error) {
	receivers, err := otelcol.MakeFactoryMap[receiver.Factory](
		splunkhecreceiver.NewFactory(), lokireceiver.NewFactory(), otlpreceiver.NewFactory())
	if err != nil {
		return otelcol.Factories{}, err
	}
	extensions, err := otelcol.MakeFactoryMap[extension.Factory](
		ackextension.NewFactory(), bearertokenauthextension.NewFactory())
	if err != nil {
		return otelcol.Factories{}, err
	}
	exporters, err := otelcol.MakeFactoryMap[exporter.Factory](keptFactory())
	return otelcol.Factories{
		Receivers:  receivers,
		Extensions: extensions,
		Exporters:  exporters,
		Telemetry:  otelconftelemetry.NewFactory(),
	}, err
}

func main() {
	command := otelcol.NewCommand(otelcol.CollectorSettings{
		BuildInfo: component.BuildInfo{Command: "collector", Description: "receivers for tests", Version: "0"},
		Factories: factories,
		ConfigProviderSettings: otelcol.ConfigProviderSettings{ResolverSettings: confmap.ResolverSettings{
			DefaultScheme:     "file",
			ProviderFactories: []confmap.ProviderFactory{fileprovider.NewFactory()},
		}},
	})
	command.SilenceErrors, command.SilenceUsage = true, true
	if err := command.Execute(); err != nil {
		log.Fatal(err)
	}
}
