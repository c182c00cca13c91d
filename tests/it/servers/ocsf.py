"""Prints the JSON Schema of an OCSF class: `ocsf.py 1.5.0 detection_finding`. The schema comes with the package."""

import json
import sys

from ocsf_json_schema import get_ocsf_schema, OcsfJsonSchemaEmbedded

version, name = sys.argv[1:]
print(json.dumps(OcsfJsonSchemaEmbedded(get_ocsf_schema(version=version)).get_class_schema(class_name=name, profiles=[])))
