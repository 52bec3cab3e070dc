// SPDX-License-Identifier: Apache-2.0
// The microphone of the device that shows this page, as voice messages (kiosk/protocol.py). It is open, and the browser
// shows that it is, only between `open` and `close`.

import { packVoice } from "./connection.js";

const RATE = 16000;

export class Microphone {
  // send(message): an ArrayBuffer.
  constructor(send) {
    this.send = send;
    this.sequence = 0;
    this.stream = null;
  }

  // Throws an Error whose message says what to do.
  async open() {
    if (!navigator.mediaDevices) throw new Error("The microphone needs https, or this device's own page");
    const wish = { channelCount: 1, echoCancellation: true, noiseSuppression: true, autoGainControl: true };
    const turn = this.turn = Symbol("turn");
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ audio: wish });
    } catch (error) {
      throw new Error(error.name === "NotAllowedError" ? "The microphone is not allowed here" : "There is no microphone");
    }
    if (this.turn !== turn) {               // closed while the browser asked
      for (const track of stream.getTracks()) track.stop();
      return;
    }
    this.stream = stream;
    const context = this.context = new AudioContext({ sampleRate: RATE });
    await context.audioWorklet.addModule("voice-worklet.js");
    if (this.context !== context) return;   // closed meanwhile
    const node = new AudioWorkletNode(context, "voice", { numberOfOutputs: 1 });
    node.port.onmessage = ({ data }) => {
      if (this.context === context) this.send(packVoice(data, context.sampleRate, this.sequence++));
    };
    const silent = context.createGain();    // nodes that lead nowhere are not run
    silent.gain.value = 0;
    context.createMediaStreamSource(stream).connect(node).connect(silent).connect(context.destination);
    await context.resume();
  }

  close() {
    this.turn = null;
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.context?.close();
    this.stream = this.context = null;
  }
}
