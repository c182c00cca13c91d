"""Reads messages, one JSON object a line, with Slack's own library: every block must be one it knows, within its limits, and
hold nothing it does not know. Prints the number of blocks."""

import json
import sys

from slack_sdk.models.blocks import Block

count = 0
for line in sys.stdin:
    blocks = json.loads(line)["blocks"]
    assert len(blocks) <= 50, "more than 50 blocks"
    for block in blocks:
        read = Block.parse(block)
        assert read is not None and type(read) is not Block, f"unknown: {block}"
        read.validate_json()
        assert read.to_dict() == block, f"{read.to_dict()} is what Slack reads of {block}"
        count += 1
print(count)
