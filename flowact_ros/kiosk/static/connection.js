// SPDX-License-Identifier: Apache-2.0
// The WebSocket: messages as in kiosk/protocol.py, and a connection that comes back by itself.

export const FRAME = 1, AUDIO = 2, STATE = 3, HELLO = 4, VOICE = 5;
const VERSION = 1, HEADER = 16;
const FIRST_RETRY_MS = 250, LONGEST_RETRY_MS = 5000, SILENT_MS = 25000, ANSWER_MS = 400;
const OPENING_MS = 8000, LOOK_MS = 2000;

export function unpack(buffer) {
  if (buffer.byteLength < HEADER) return null;
  const view = new DataView(buffer);
  if (view.getUint8(1) !== VERSION) return null;
  return {
    kind: view.getUint8(0),
    rate: view.getUint16(2, true),
    sequence: view.getUint32(4, true),
    pts: view.getFloat64(8, true),
    payload: new Uint8Array(buffer, HEADER),
  };
}

// samples: the ArrayBuffer of an Int16Array; every machine that browsers run on is little-endian.
export function packVoice(samples, rate, sequence) {
  const message = new Uint8Array(HEADER + samples.byteLength);
  const view = new DataView(message.buffer);
  view.setUint8(0, VOICE);
  view.setUint8(1, VERSION);
  view.setUint16(2, rate, true);
  view.setUint32(4, sequence, true);
  message.set(new Uint8Array(samples), HEADER);
  return message.buffer;
}

export class Connection {
  // onMessage(message), onChange("connecting" | "open" | "closed" | "refused", text)
  constructor(url, onMessage, onChange) {
    this.url = url;
    this.onMessage = onMessage;
    this.onChange = onChange;
    this.opened = 0;
    this.retryMs = FIRST_RETRY_MS;
    this.heard = performance.now();
    this.answered = -Infinity;
    this.answering = null;       // the timer of an answer
    // A peer that vanished without a word (power, network) never closes the socket: silence closes it. While nothing
    // is published the server is silent too, and a fresh connection then costs nothing. One that is not answered while it
    // opens (the network was away, or the server stood still) a browser gives up after minutes only.
    setInterval(() => {
      const now = performance.now(), ready = this.socket?.readyState;
      if (ready === WebSocket.OPEN && now - this.heard > SILENT_MS) this.socket.close();
      if (ready === WebSocket.CONNECTING && now - this.opening > OPENING_MS) this.socket.close();
    }, LOOK_MS);
    addEventListener("online", () => this.retryNow());
    document.addEventListener("visibilitychange", () => { if (!document.hidden) this.retryNow(); });
    this.open();
  }

  open() {
    clearTimeout(this.timer);
    this.timer = null;
    this.onChange("connecting");
    let socket;
    try {
      socket = new WebSocket(this.url);
    } catch (error) {
      this.later();
      return;
    }
    this.socket = socket;
    this.opening = performance.now();
    socket.binaryType = "arraybuffer";
    socket.onmessage = (event) => {
      this.heard = performance.now();
      const message = event.data instanceof ArrayBuffer ? unpack(event.data) : null;
      if (!message) return;
      if (message.kind === HELLO) {  // only now is it our server that answers, not just a port
        this.opened += 1;
        this.retryMs = FIRST_RETRY_MS;
        this.onChange("open");
      }
      if (message.kind === FRAME) this.answer(message.sequence);
      this.onMessage(message);
    };
    socket.onclose = () => {
      if (this.socket === socket) this.later();
    };
  }

  later() {
    this.onChange("closed");
    this.checkRefusal();
    const wait = this.retryMs * (0.8 + 0.4 * Math.random());
    this.retryMs = Math.min(this.retryMs * 1.7, LONGEST_RETRY_MS);
    this.timer = setTimeout(() => this.open(), wait);
  }

  retryNow() {
    if (this.timer !== null && this.timer !== undefined) this.open();
  }

  // A refused WebSocket tells the page nothing; plain HTTP says why.
  async checkRefusal() {
    try {
      const answer = await fetch("healthz", { cache: "no-store" });
      if (answer.status === 401 || answer.status === 403) this.onChange("refused", (await answer.text()).trim());
    } catch (error) {
      this.lastError = String(error);  // the server is away: the retry goes on
    }
  }

  // Tells what has arrived, so that the server knows how late the link is: at once, or with what comes shortly after.
  answer(frame) {
    this.newest = frame;
    if (this.answering) return;
    const wait = Math.max(0, this.answered + ANSWER_MS - this.heard);
    this.answering = setTimeout(() => {
      this.answering = null;
      this.answered = performance.now();
      this.send({ type: "got", frame: this.newest });
    }, wait);
  }

  sendVoice(message) {
    if (this.socket?.readyState === WebSocket.OPEN && this.socket.bufferedAmount < 65536) this.socket.send(message);
  }

  send(object) {
    if (this.socket?.readyState === WebSocket.OPEN && this.socket.bufferedAmount < 65536) {
      this.socket.send(JSON.stringify(object));
    }
  }
}
