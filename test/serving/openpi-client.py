"""Asks a served policy through openpi's own client: an observation as JSON in each line of standard input, an action in each of the output."""
import base64
import json
import sys

import numpy
from openpi_client.websocket_client_policy import WebsocketClientPolicy

policy = WebsocketClientPolicy("127.0.0.1", int(sys.argv[1]))
for line in sys.stdin:
    seen = json.loads(line)
    pixels = numpy.frombuffer(base64.b64decode(seen["pixels"]), numpy.uint8).reshape(seen["shape"])
    state = numpy.array(seen["state"], numpy.float32)
    answer = policy.infer({"observation/front": pixels, "observation/state": state, "prompt": seen["instruction"]})
    assert answer["actions"].shape[0] == 1 and answer["server_timing"]["infer_ms"] > 0
    print(json.dumps(answer["actions"][0].tolist()), flush=True)
