// SPDX-License-Identifier: Apache-2.0
// The page: connection -> frames and sound -> screen and loudspeaker, and the little there is to read.

import { AUDIO, Connection, FRAME, HELLO, STATE } from "./connection.js";
import { AudioPlayer } from "./audio.js";
import { Dialogue } from "./captions.js";
import { MonotonicClock } from "./clock.js";
import { Backdrop, FrameQueue } from "./video.js";

const $ = (id) => document.getElementById(id);
const STALLED_MS = 1500, SKEW_SAMPLES = 600, FIRST_FRAME = "Waiting for the first frame";

const picture = $("picture");
const video = new FrameQueue(picture);
const backdrop = new Backdrop($("backdrop"), $("shade"));
const clock = new MonotonicClock(0.2);
const audio = new AudioPlayer(clock, 0.2, showSound);

const dialogue = new Dialogue($("heard"), $("said"), $("turn"));

let connection = null;
let hello = {};
let state = {};
let source = "monotonic";        // which clock leads
let skew = [];                   // ms, pts drawn - pts heard, one per screen refresh while sound leads
let lastFrameMs = -Infinity;

// ---------------------------------------------------------------- what arrives

function onMessage(message) {
  const now = performance.now();
  if (message.kind === FRAME) {
    lastFrameMs = now;
    clock.arrived(now, message.pts, source === "monotonic");
    video.push(message, clock.at(now));
  } else if (message.kind === AUDIO) {
    audio.push(message, now);
  } else if (message.kind === STATE) {
    state = readJson(message.payload);
    dialogue.push(state);
    showState();
  } else if (message.kind === HELLO) {
    hello = readJson(message.payload);
    document.title = hello.title || "FlowAct";
    const bufferS = (Number(hello.buffer_ms) || 200) / 1000;
    audio.baseBufferS = bufferS;
    clock.bufferS = bufferS;
    clock.reset();
    video.reset();
    audio.clear();
    dialogue.reset();
    skew = [];
    audio.resume();
  }
}

function readJson(bytes) {
  try {
    return JSON.parse(new TextDecoder().decode(bytes)) ?? {};
  } catch (error) {
    return {};
  }
}

// ---------------------------------------------------------------- every refresh of the screen

function refresh() {
  requestAnimationFrame(refresh);
  const now = performance.now();
  if (!clock.started) return;
  const heard = audio.heardAt(now);
  source = heard === null ? "monotonic" : "audio";
  if (heard !== null) clock.set(now, heard);
  const content = clock.at(now);
  dialogue.show(content);
  if (video.draw(content)) {
    document.body.classList.add("seen");
    backdrop.paint(picture, now);
  }
  if (heard !== null && video.drawnPts !== null && now - lastFrameMs < STALLED_MS) {
    skew.push((video.drawnPts - heard) * 1000);
    if (skew.length > SKEW_SAMPLES) skew.splice(0, skew.length - SKEW_SAMPLES);
  }
}
requestAnimationFrame(refresh);

// ---------------------------------------------------------------- what is shown

function showConnection(change, text) {
  if (change === "open") {
    document.body.dataset.connection = "live";
    $("waiting-text").textContent = FIRST_FRAME;
  } else if (change === "refused") {
    document.body.dataset.connection = "refused";
    $("waiting-text").textContent = text;
  } else if (document.body.dataset.connection === "live") {
    document.body.dataset.connection = "reconnecting";
    audio.stop();                // half a word from before the break helps nobody
    dialogue.reset();
    $("waiting-text").textContent = "Reconnecting";
  }
  showState();
}

function stateText() {
  const link = document.body.dataset.connection;
  if (link !== "live") return link;
  if (state.message) return String(state.message).slice(0, 80);
  if (document.body.classList.contains("stalled")) return "no picture";
  return String(state.behaviour || (state.speaking ? "speaking" : "") || "ready").toLowerCase().slice(0, 40);
}

function showState() {
  const text = stateText();
  if ($("corner-state").textContent !== text) {
    $("corner-state").textContent = text;
    $("announcer").textContent = text;
    if (document.body.dataset.connection === "live") $("waiting-text").textContent = state.message ? text : FIRST_FRAME;
  }
}

function showSound() {
  document.body.dataset.sound = audio.state;
  $("sound").hidden = audio.state !== "suspended" && audio.state !== "interrupted";
}

setInterval(() => {
  const now = performance.now();
  const live = document.body.dataset.connection === "live";
  document.body.classList.toggle("stalled", live && video.drawnPts !== null && now - lastFrameMs > STALLED_MS);
  $("corner-fps").textContent = live && video.drawnPts !== null ? `${video.fps()} fps` : "";
  showState();
  showSound();
  const s = stats();
  connection?.send({
    type: "stats", drawn: s.drawn, fps: s.fps, late: s.late, underruns: s.underruns, skips: s.skips,
    buffer_ms: s.bufferMs, skew_p50_ms: s.skew.p50, skew_p95_ms: s.skew.p95, clock: s.clock, audio: s.audio,
  });
  if (!$("details").hidden) showDetails(s);
}, 1000);

function showDetails(s) {
  const ms = (value) => (value === null ? "–" : `${value.toFixed(0)} ms`);
  const rows = [
    ["connection", `${s.connection}, ${s.connections} opened`],
    ["picture", `${picture.width} × ${picture.height}, ${s.fps} fps`],
    ["frames", `${s.drawn} drawn, ${s.late} late, ${s.missing} dropped`],
    ["clock", s.clock],
    ["sound", `${s.audio}, ${s.underruns} underruns, ${s.skips} skips`],
    ["pace", `${((s.pace - 1) * 100).toFixed(2)} %`],
    ["buffer", ms(s.bufferMs)],
    ["sound – picture p50, p95", `${ms(s.skew.p50)}, ${ms(s.skew.p95)}`],
    ...Object.entries(state).slice(0, 40).map(([name, value]) => [
      name, typeof value === "object" && value !== null ? JSON.stringify(value) : String(value),
    ]),
  ];
  $("details-list").replaceChildren(...rows.flatMap(([name, value]) => {
    const dt = document.createElement("dt"), dd = document.createElement("dd");
    dt.textContent = name;
    dd.textContent = value.slice(0, 300);
    return [dt, dd];
  }));
}

// ---------------------------------------------------------------- what a person does

function unlock() {
  if (!audio.running) audio.resume().then(showSound);
}
for (const event of ["pointerup", "keydown", "touchend"]) addEventListener(event, unlock, { passive: true });

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "f" || event.key === "F") toggleFullScreen();
  if (event.key === "c" || event.key === "C") {
    dialogue.toggle();
    dialogue.push(state);
  }
  if (event.key === "d" || event.key === "D") {
    $("details").hidden = !$("details").hidden;
    if (!$("details").hidden) showDetails(stats());
  }
});
$("stage").addEventListener("dblclick", toggleFullScreen);

function toggleFullScreen() {
  const done = document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen?.();
  done?.catch(() => document.body.classList.add("no-full-screen"));
}

let idleTimer = 0;
function pointerMoved() {
  document.body.classList.remove("idle");
  clearTimeout(idleTimer);
  idleTimer = setTimeout(() => document.body.classList.add("idle"), 3000);
}
addEventListener("pointermove", pointerMoved, { passive: true });
pointerMoved();

// A face that goes dark mid-sentence is no use; where the browser grants it, the screen stays on.
async function keepAwake() {
  if (document.hidden || !navigator.wakeLock) return;
  await navigator.wakeLock.request("screen").catch(() => null);
}
document.addEventListener("visibilitychange", keepAwake);
keepAwake();

// ---------------------------------------------------------------- for tests and the curious

function quantile(sorted, q) {
  return sorted.length ? sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] : null;
}

function stats() {
  const size = skew.map(Math.abs).sort((a, b) => a - b);
  const signed = [...skew].sort((a, b) => a - b);
  const lead = (source === "audio" ? audio.lead : clock.lead).best;
  return {
    connection: document.body.dataset.connection,
    connections: connection?.opened ?? 0,
    run: hello.run ?? null,
    ...video.counters,
    fps: video.fps(),
    waiting: video.frames.length,
    drawnPts: video.drawnPts,
    clock: source,
    contentTime: clock.at(performance.now()),
    jumps: clock.jumps,
    audio: audio.state,
    playing: audio.playing,
    heardPts: audio.heardAt(performance.now()),
    pace: audio.pace,
    underruns: audio.counters.underruns,
    skips: audio.counters.skips,
    gaps: audio.counters.gaps,
    audioMissing: audio.counters.missing,
    bufferMs: lead === null ? null : lead * 1000,
    skew: { count: size.length, p50: quantile(size, 0.5), p95: quantile(size, 0.95), signed: quantile(signed, 0.5) },
    state,
  };
}

window.flowact = { stats, audio, video, clock, skewSamples: () => [...skew] };

// Relative to the page: a proxy may serve it below a path of its own.
const address = new URL("ws", location.href);
address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
address.search = address.hash = "";
connection = new Connection(address.href, onMessage, showConnection);
showSound();
