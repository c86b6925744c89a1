"""Checks Kubernetes manifests against the published schemas, and prints all of them as one list in JSON."""

import json
import sys

import kubernetes_validate
import yaml

# Kinds that an operator brings; their schemas are not Kubernetes' own.
ELSEWHERE = {"PodMonitor"}

manifests = []
for name in sys.argv[1:]:
    with open(name, encoding="utf-8") as file:
        manifests += list(yaml.safe_load_all(file))
for manifest in manifests:
    if manifest["kind"] in ELSEWHERE:
        continue
    for version in ("1.27", "1.32", "1.37"):
        kubernetes_validate.validate(manifest, version, strict=True)
print(json.dumps(manifests))
