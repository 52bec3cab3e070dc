// SPDX-License-Identifier: Apache-2.0
// Frames: decoded off the main thread as they arrive, drawn when the content clock reaches them.

const MOST_WAITING = 50;   // decoded frames held (2 s), whatever the clock says
const LATE_S = 0.06;       // a frame this far behind the clock is not worth drawing any more

export class FrameQueue {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { alpha: false });
    this.run = 0;
    this.frames = [];        // {pts, bitmap}, sorted by pts
    this.decoding = 0;
    this.counters = { received: 0, drawn: 0, late: 0, broken: 0, missing: 0 };
    this.reset();
  }

  reset() {
    this.run += 1;           // bitmaps of the connection before are thrown away when they are ready
    for (const frame of this.frames) frame.bitmap.close();
    this.frames = [];
    this.drawnPts = null;
    this.sequence = null;
    this.reduced = false;    // fewer frames come than were made
    this.drawnAt = [];       // performance times of the last second's drawings
  }

  async push(message, now) {
    this.counters.received += 1;
    const step = Math.max(1, message.rate);   // only every n-th frame is sent over a slow link
    if (this.sequence !== null) {
      const gap = Math.round(((message.sequence - this.sequence) >>> 0) / step);
      this.counters.missing += Math.max(0, gap - 1);
    }
    this.sequence = message.sequence;
    this.reduced = step > 1;
    if (now !== null && message.pts < now - LATE_S) {
      this.counters.late += 1;
      return;
    }
    const run = this.run;
    this.decoding += 1;
    let bitmap;
    try {
      bitmap = await createImageBitmap(new Blob([message.payload], { type: "image/jpeg" }));
    } catch (error) {
      this.counters.broken += 1;
      return;
    } finally {
      this.decoding -= 1;
    }
    if (run !== this.run || (this.drawnPts !== null && message.pts <= this.drawnPts)) {
      bitmap.close();
      if (run === this.run) this.counters.late += 1;
      return;
    }
    let place = this.frames.length;
    while (place > 0 && this.frames[place - 1].pts > message.pts) place -= 1;
    this.frames.splice(place, 0, { pts: message.pts, bitmap });
    while (this.frames.length > MOST_WAITING) this.discard(this.frames.shift());
  }

  // Draws the frame whose pts is nearest to the content time; true when it is a new one.
  draw(now) {
    let best = -1;
    let distance = this.drawnPts === null ? Infinity : Math.abs(this.drawnPts - now);
    for (let i = 0; i < this.frames.length; i += 1) {
      const d = Math.abs(this.frames[i].pts - now);
      if (d > distance) break;
      distance = d;
      best = i;
    }
    if (best < 0) return false;
    const frame = this.frames[best];
    if (frame.pts - now > 1) return false;   // far ahead: the clock is about to be set
    for (const old of this.frames.splice(0, best)) this.discard(old);
    this.frames.shift();
    const { bitmap } = frame;
    if (this.canvas.width !== bitmap.width || this.canvas.height !== bitmap.height) {
      this.canvas.width = bitmap.width;
      this.canvas.height = bitmap.height;
    }
    this.context.drawImage(bitmap, 0, 0);
    bitmap.close();
    this.drawnPts = frame.pts;
    this.counters.drawn += 1;
    this.drawnAt.push(performance.now());
    return true;
  }

  fps() {
    const since = performance.now() - 1000;
    while (this.drawnAt.length && this.drawnAt[0] < since) this.drawnAt.shift();
    return this.drawnAt.length;
  }

  discard(frame) {
    frame.bitmap.close();
    this.counters.late += 1;
  }
}
