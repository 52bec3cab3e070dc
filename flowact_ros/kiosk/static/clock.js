// SPDX-License-Identifier: Apache-2.0
// Content time (the server's pts, seconds) against the page's own monotonic clock (performance.now(), milliseconds).
//
// It runs the picture until sound is allowed and whenever there is none; while sound plays it is slaved to the sound, so
// that changing over in either direction does not jump.

const SLEW = 0.05;       // without sound nobody hears a 5 % change of pace
const JUMP_S = 0.35;     // beyond this, correcting slowly would take longer than a cut is worth

// How far ahead of its time data arrives: the best of the last arrivals. Load and networks only ever delay, so the best
// ones show how the two clocks stand to each other, and a bad second does not make the pace waver.
export class Lead {
  constructor(arrivals = 64) {
    this.arrivals = arrivals;
    this.values = [];
  }

  reset() { this.values = []; }

  add(lead) {
    this.values.push(lead);
    if (this.values.length > this.arrivals) this.values.shift();
  }

  get best() { return this.values.length ? Math.max(...this.values) : null; }
}

export class MonotonicClock {
  constructor(bufferS) {
    this.bufferS = bufferS;
    this.lead = new Lead();
    this.reset();
  }

  reset() {
    this.anchorMs = null;  // at this performance time ...
    this.anchorPts = 0;    // ... the content time was this
    this.rate = 1;
    this.lead.reset();
    this.jumps = 0;
  }

  get started() { return this.anchorMs !== null; }

  at(ms) {
    return this.started ? this.anchorPts + ((ms - this.anchorMs) / 1000) * this.rate : null;
  }

  msOf(pts) {
    return this.anchorMs + ((pts - this.anchorPts) * 1000) / this.rate;
  }

  set(ms, pts, rate = 1) {
    this.anchorMs = ms;
    this.anchorPts = pts;
    this.rate = rate;
  }

  // A frame (or sound) with this pts has just arrived; `free` when nothing else disciplines the clock.
  arrived(ms, pts, free) {
    if (!this.started) {
      this.set(ms, pts - this.bufferS);
      this.lead.add(this.bufferS);
      return;
    }
    this.lead.add(pts - this.at(ms));
    if (!free) return;
    const error = this.lead.best - this.bufferS;
    if (Math.abs(error) > JUMP_S) {
      this.set(ms, pts - this.bufferS);
      this.lead.reset();
      this.jumps += 1;
    } else {
      const wanted = Math.abs(error) < 0.02 ? 0 : Math.max(-SLEW, Math.min(SLEW, error));
      this.set(ms, this.at(ms), 1 + wanted);
    }
  }
}
