import org.codelibs.opensearch.runner.OpenSearchRunner;

/** One node: data directory and HTTP port are the arguments. Runs until it is killed. */
public class OpenSearch {
    public static void main(String[] args) throws Exception {
        OpenSearchRunner runner = new OpenSearchRunner();
        runner.onBuild((number, settings) -> {
            settings.put("http.port", Integer.parseInt(args[1]));
            settings.put("network.host", "127.0.0.1");
            settings.put("discovery.type", "single-node");
            settings.put("cluster.routing.allocation.disk.threshold_enabled", false);
        });
        runner.build(OpenSearchRunner.newConfigs().basePath(args[0]).numOfNode(1).clusterName("test").useLogger());
        Thread.currentThread().join();
    }
}
