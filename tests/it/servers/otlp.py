"""Takes OTLP logs over HTTP and reads them with the project's own generated messages.

Arguments: a directory. Writes the port to `port` and each record as a line of JSON to `records`. A record whose body holds
`REJECT` is rejected as the protocol has it (partial success); a request with `BUSY` is answered 503 with Retry-After once.
"""

import gzip
import http.server
import pathlib
import sys

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
import json

base = pathlib.Path(sys.argv[1])
busy = []


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def reply(self, status, body=b"", headers=()):
        self.send_response(status)
        for name, value in [("Content-Type", "application/x-protobuf"), ("Content-Length", str(len(body))), *headers]:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path != "/v1/logs" or self.headers["Content-Type"] != "application/x-protobuf":
            return self.reply(404)
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        request = ExportLogsServiceRequest()
        request.ParseFromString(body)
        if b"BUSY" in body and not busy:
            busy.append(True)
            return self.reply(503, headers=[("Retry-After", "1")])
        response = ExportLogsServiceResponse()
        with open(base / "records", "a") as out:
            for resource in request.resource_logs:
                for scope in resource.scope_logs:
                    for record in scope.log_records:
                        if "REJECT" in record.body.string_value:
                            response.partial_success.rejected_log_records += 1
                            response.partial_success.error_message = "the body says so"
                            continue
                        line = MessageToDict(record)
                        line["resource"] = MessageToDict(resource.resource)
                        out.write(json.dumps(line) + "\n")
        self.reply(200, response.SerializeToString())


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
(base / "port.new").write_text(str(server.server_address[1]))
(base / "port.new").rename(base / "port")
server.serve_forever()
