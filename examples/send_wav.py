# SPDX-License-Identifier: Apache-2.0
"""Has a running avatar say a WAV file, through the action `say`. Ctrl-C is a barge-in: the lips come to rest at once.

    python examples/send_wav.py hello.wav
    python examples/send_wav.py hello.wav --ros-args -r __ns:=/robot1/avatar
"""

import sys
import wave

import rclpy
from rclpy.action import ActionClient
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args

from flowact_msgs.action import Say
from flowact_msgs.msg import AudioChunk


def read(path: str) -> AudioChunk:
    with wave.open(path) as wav:
        if wav.getsampwidth() != 2:
            raise ValueError(f"{path} has samples of {8 * wav.getsampwidth()} bits: 16 are needed")
        chunk = AudioChunk(sample_rate=wav.getframerate(), channels=wav.getnchannels(), encoding="S16LE", last=True)
        chunk.data.frombytes(wav.readframes(wav.getnframes()))
    return chunk


def main() -> int:
    try:
        goal = Say.Goal(audio=read(remove_ros_args(sys.argv)[1]), policy=Say.Goal.QUEUE)
    except (IndexError, OSError, EOFError, ValueError, wave.Error) as error:
        print(f"send_wav: give a WAV file of 16 bits ({error})", file=sys.stderr)
        return 2
    # rclpy's own handler of Ctrl-C would end the context that the cancel request needs.
    rclpy.init(args=sys.argv, signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("send_wav", namespace="avatar")
    client = ActionClient(node, Say, "say")
    if not client.wait_for_server(timeout_sec=30.0):
        print(f"send_wav: no avatar answers at {node.resolve_service_name('say')}", file=sys.stderr)
        return 1
    sent = client.send_goal_async(goal)
    rclpy.spin_until_future_complete(node, sent)
    result = sent.result().get_result_async()
    while not result.done():
        try:
            rclpy.spin_once(node, timeout_sec=0.1)
        except KeyboardInterrupt:
            sent.result().cancel_goal_async()
    answer = result.result().result
    print(f"spoken: {answer.spoken.sec + answer.spoken.nanosec / 1e9:.2f} s {answer.error_msg}".rstrip())
    return int(answer.error_code != Say.Result.NONE)


if __name__ == "__main__":
    sys.exit(main())
