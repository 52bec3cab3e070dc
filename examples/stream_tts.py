# SPDX-License-Identifier: Apache-2.0
"""Streams a text-to-speech engine onto `speech`: each sentence is on its way while the next one is being made.

    python examples/stream_tts.py "Good morning. This sentence was made while you heard the one before it."
    echo "Good morning." | python examples/stream_tts.py

Put your own engine in the place of `sentences`: any rate from 8 to 192 kHz, chunks of any length, as fast as you like.
"""

import sys
import time
from collections.abc import Iterator

import numpy as np
import rclpy
from hibari import Hibari
from rclpy.duration import Duration
from rclpy.utilities import remove_ros_args

from flowact_msgs.msg import AudioChunk, Transcript

RATE = Hibari.sample_rate


def sentences(text: str) -> Iterator[bytes]:
    """The engine: signed 16-bit samples of one sentence after the other."""
    for pcm in Hibari().stream(text):
        yield (np.clip(pcm, -1.0, 1.0) * 32767).astype("<i2").tobytes()


def main() -> int:
    text = " ".join(remove_ros_args(sys.argv)[1:]) or sys.stdin.read()
    rclpy.init(args=sys.argv)
    node = rclpy.create_node("stream_tts", namespace="avatar")
    speech = node.create_publisher(AudioChunk, "speech", 1000)  # reliable, and deep: a whole text may wait in it
    texts = node.create_publisher(Transcript, "speech/text", 10)
    deadline = time.monotonic() + 30.0
    # What is published before somebody listens is lost, on either topic.
    while not (speech.get_subscription_count() and texts.get_subscription_count()):
        if time.monotonic() > deadline:
            print(f"stream_tts: nobody listens on {speech.topic_name}: is an avatar running?", file=sys.stderr)
            return 1
        time.sleep(0.1)
    name = f"tts-{time.time_ns()}"  # one utterance, from the first chunk to the one with `last`
    texts.publish(Transcript(utterance_id=name, text=text, final=True, confidence=1.0))  # captions, manner of speaking
    sent = 0
    for sequence, pcm in enumerate(sentences(text)):
        chunk = AudioChunk(sample_rate=RATE, channels=1, encoding="S16LE", utterance_id=name)
        chunk.sequence, chunk.first_sample = sequence, sent // 2
        chunk.data.frombytes(pcm)
        speech.publish(chunk)
        sent += len(pcm)
    speech.publish(AudioChunk(sample_rate=RATE, channels=1, encoding="S16LE", utterance_id=name, last=True))
    print(f"sent: {sent / 2 / RATE:.2f} s as {name}")
    return int(not speech.wait_for_all_acked(Duration(seconds=10)))


if __name__ == "__main__":
    sys.exit(main())
