// SPDX-License-Identifier: Apache-2.0
// Sound: each arriving piece is resampled to a whole number of output samples and scheduled right after the one before,
// so there are no seams, and for every output instant the page knows which pts is heard. (Scheduled buffers instead of
// a worklet: worklets exist in secure contexts only, and a robot on a local network has no certificate.)

import { Lead } from "./clock.js";

export const MOST_DRIFT = 0.005;   // <= 0.5 %: 9 cents, not heard in speech
const DEAD_BAND_S = 0.015;
const SKIP_S = 0.45;               // this much too far behind: cut instead of resampling for minutes
const BACKLOG_S = 2;
const START_AHEAD_S = 0.04;        // first sample of a start is scheduled this far ahead
const FADE = 96;                   // output samples of fade-in after a start

// Streaming resampler by cubic interpolation. `push(input, ratio)` returns the outputs whose four neighbours are known;
// at ratio 1 and phase 0 it copies. Output sample j of a call lies at input time `start + j / ratio` relative to the
// first sample of this call's input (start may be negative: up to two samples are held back).
export class StreamResampler {
  constructor() { this.reset(); }

  reset() {
    this.held = new Float32Array(0);
    this.position = 0;      // of the next output, in `held` + input
    this.fresh = true;
  }

  push(input, ratio) {      // ratio: output rate / input rate
    const x = new Float32Array(this.held.length + input.length);
    x.set(this.held);
    x.set(input, this.held.length);
    const start = this.position - this.held.length;
    const step = 1 / ratio;
    const last = x.length - 3;                  // highest floor(position) with two samples after it
    const count = Math.max(0, Math.floor((last + 1 - this.position) / step - 1e-9) + 1);
    const out = new Float32Array(count);
    let n = 0;
    let p = this.position;
    for (; n < count; n += 1) {
      const i = Math.floor(p + 1e-9);
      if (i > last) break;
      const t = Math.max(0, p - i);
      const b = x[i];
      if (t < 1e-7) {
        out[n] = b;
      } else {
        const a = i > 0 ? x[i - 1] : b, c = x[i + 1], d = x[i + 2];
        out[n] = b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)));
      }
      p += step;
    }
    const keep = Math.max(0, Math.min(x.length, Math.floor(p + 1e-9) - 1));
    this.held = x.slice(keep);
    this.position = p - keep;
    return { samples: n === count ? out : out.subarray(0, n), start };
  }
}

export class AudioPlayer {
  // `clock` is the MonotonicClock the sound joins and then leads.
  constructor(clock, bufferS, onChange) {
    this.clock = clock;
    this.baseBufferS = bufferS;
    this.onChange = onChange;
    this.counters = { chunks: 0, underruns: 0, skips: 0, gaps: 0, missing: 0 };
    this.backlog = [];          // {pts, rate, samples}: what a start may need
    this.segments = [];         // scheduled: {from, to (context s), pts, pace (pts s per context s)}
    this.sources = new Set();
    this.resampler = new StreamResampler();
    this.lead = new Lead();
    this.clear();
    try {
      const Context = window.AudioContext ?? window.webkitAudioContext;
      this.context = openContext(Context);
      this.output = this.context.createGain();
      this.output.connect(this.context.destination);
      this.context.onstatechange = () => this.changed();
    } catch (error) {
      this.context = null;      // a machine without sound still shows the picture
      this.failure = String(error);
    }
  }

  get state() { return this.context ? this.context.state : "none"; }
  get running() { return this.state === "running"; }
  get playing() { return this.running && this.endsAt !== null; }

  changed() {
    if (!this.running) this.stop();
    this.onChange();
  }

  // Inside a user's gesture this unlocks the sound; elsewhere the browser may leave it suspended.
  async resume() {
    if (this.context && this.context.state !== "running" && this.context.state !== "closed") {
      await this.context.resume().catch((error) => { this.failure = String(error); });
      this.onChange();
    }
  }

  setVolume(share) {            // 0 … 1
    if (this.context) this.output.gain.value = share;
  }

  clear() {                     // a new connection: nothing of the stream before is heard or kept
    this.stop();
    this.backlog = [];
    this.sequence = null;
    this.bufferS = this.baseBufferS;
  }

  stop() {
    for (const source of this.sources) {
      source.onended = null;
      source.stop();
      source.disconnect();
    }
    this.sources.clear();
    this.segments = [];
    this.resampler.reset();
    this.endsAt = null;         // context frame after the last one scheduled; null while silent
    this.nextPts = null;        // pts that belongs there
    this.pace = 1;
    this.lead.reset();
  }

  push(message, nowMs) {
    const count = message.payload.byteLength >> 1;
    const view = new DataView(message.payload.buffer, message.payload.byteOffset, count * 2);
    const samples = new Float32Array(count);
    for (let i = 0; i < count; i += 1) samples[i] = view.getInt16(2 * i, true) / 32768;
    const chunk = { pts: message.pts, rate: message.rate, samples, end: message.pts + count / message.rate };
    this.counters.chunks += 1;
    if (this.sequence !== null) this.counters.missing += Math.max(0, ((message.sequence - this.sequence) >>> 0) - 1);
    this.sequence = message.sequence;
    this.backlog.push(chunk);
    while (this.backlog.length > 1 && chunk.end - this.backlog[0].end > BACKLOG_S) this.backlog.shift();
    if (!this.running) return;
    if (this.endsAt !== null) this.watch(chunk, nowMs);
    if (this.endsAt === null) this.start(nowMs);
    else this.append(chunk);
  }

  // Is what is scheduled still ahead of the loudspeaker, and at the right distance?
  watch(chunk, nowMs) {
    const c = this.context;
    if (this.endsAt / c.sampleRate < c.currentTime + 0.003) {
      this.counters.underruns += 1;
      this.bufferS = Math.min(this.bufferS + 0.04, this.baseBufferS + 0.2);   // this link needs more
      this.clock.bufferS = this.bufferS;
      this.stop();
      return;
    }
    const heard = this.heardAt(nowMs);
    if (heard === null) return;                                  // scheduled, but not out of the loudspeaker yet
    this.lead.add(chunk.pts - heard);
    const error = this.lead.best - this.bufferS;
    if (Math.abs(error) > SKIP_S) {
      this.counters.skips += 1;
      this.stop();
      this.clock.set(nowMs, chunk.pts - this.bufferS);
    } else {
      this.pace = 1 + (Math.abs(error) < DEAD_BAND_S ? 0 : Math.max(-MOST_DRIFT, Math.min(MOST_DRIFT, error * 0.05)));
    }
  }

  // Joins the picture's clock: the first sample is chosen so that it is heard when that clock says so.
  start(nowMs) {
    const c = this.context;
    if (!this.clock.started || !this.backlog.length) return;
    const frame = Math.ceil((c.currentTime + START_AHEAD_S) * c.sampleRate);
    const heardMs = nowMs + (frame / c.sampleRate - this.outputTime(nowMs)) * 1000;
    const pts = this.clock.at(heardMs);
    const first = this.backlog[0], newest = this.backlog[this.backlog.length - 1];
    if (newest.end - pts < 0.03) return;                         // not there yet: the next piece tries again
    this.resampler.reset();
    this.endsAt = frame;
    this.nextPts = Math.max(pts, first.pts);
    if (this.nextPts > pts) this.endsAt += Math.round((this.nextPts - pts) * c.sampleRate);
    this.fade = FADE;
    for (const chunk of this.backlog) this.append(chunk);
  }

  append(chunk) {
    const tolerance = 0.001;
    let { samples } = chunk;
    let from = chunk.pts;
    if (from < this.nextPts - tolerance) {                       // heard already: cut
      const cut = Math.min(samples.length, Math.round((this.nextPts - from) * chunk.rate));
      samples = samples.subarray(cut);
      from += cut / chunk.rate;
      if (!samples.length) return;
    } else if (from > this.nextPts + tolerance) {                // something is missing: silence keeps the time
      const gap = from - this.nextPts;
      this.counters.gaps += 1;
      if (gap > BACKLOG_S) {
        this.stop();
        return;
      }
      const padded = new Float32Array(samples.length + Math.round(gap * chunk.rate));
      padded.set(samples, padded.length - samples.length);
      samples = padded;
      from = this.nextPts;
    }
    const rate = this.context.sampleRate;
    const ratio = rate / chunk.rate / this.pace;
    const { samples: out, start } = this.resampler.push(samples, ratio);
    this.nextPts = from + samples.length / chunk.rate;
    if (out.length) this.schedule(out, from + start / chunk.rate, rate);
  }

  schedule(samples, pts, rate) {
    const c = this.context;
    for (let i = 0; this.fade > 0 && i < samples.length; i += 1, this.fade -= 1) samples[i] *= 1 - this.fade / FADE;
    const buffer = c.createBuffer(1, samples.length, rate);
    buffer.copyToChannel(samples, 0);
    const source = c.createBufferSource();
    source.buffer = buffer;
    source.connect(this.output);
    source.onended = () => this.sources.delete(source);
    source.start(this.endsAt / rate);
    this.sources.add(source);
    const from = this.endsAt / rate;
    this.endsAt += samples.length;
    this.segments.push({ from, to: this.endsAt / rate, pts, pace: this.pace });
    while (this.segments.length > 1 && this.segments[0].to < c.currentTime - 2) this.segments.shift();
  }

  // Context time that leaves the loudspeaker at this performance time.
  outputTime(nowMs) {
    const c = this.context;
    const latest = c.currentTime;
    const stamp = c.getOutputTimestamp ? c.getOutputTimestamp() : null;
    if (stamp && stamp.contextTime > 0 && stamp.performanceTime > 0) {
      const time = stamp.contextTime + (nowMs - stamp.performanceTime) / 1000;
      if (time > latest - 1 && time < latest + 0.1) return time;
    }
    return latest - (c.outputLatency || c.baseLatency || 0);
  }

  // The pts heard at this performance time, or null when nothing is playing.
  heardAt(nowMs) {
    if (!this.playing) return null;
    const time = this.outputTime(nowMs);
    for (let i = this.segments.length - 1; i >= 0; i -= 1) {
      const s = this.segments[i];
      if (time >= s.from) return time < s.to ? s.pts + (time - s.from) * s.pace : null;
    }
    return null;
  }
}

function openContext(Context) {
  try {
    return new Context({ sampleRate: 24000, latencyHint: "interactive" });
  } catch (error) {
    return new Context({ latencyHint: "interactive" });
  }
}
