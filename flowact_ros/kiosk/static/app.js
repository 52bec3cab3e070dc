// SPDX-License-Identifier: Apache-2.0
// The page: connection -> frames and sound -> screen and loudspeaker, the little there is to read, and what people do.

import { Attract } from "./attract.js";
import { AudioPlayer } from "./audio.js";
import { Dialogue } from "./captions.js";
import { MonotonicClock } from "./clock.js";
import { AUDIO, Connection, FRAME, HELLO, STATE } from "./connection.js";
import { showDetails, Skew } from "./details.js";
import { Microphone } from "./microphone.js";
import { Backdrop, showGround } from "./scene.js";
import { Settings, SettingsDialog } from "./settings.js";
import { Still } from "./still.js";
import { Touch } from "./touch.js";
import { FrameQueue } from "./video.js";
import { WakeLock } from "./wakelock.js";

const $ = (id) => document.getElementById(id);
const STALLED_MS = 1500, FIRST_FRAME = "Waiting for the first frame";
const NOT_GIVEN_MS = 2000;       // a turn that was asked for and did not come by then: somebody else has it
const NEW_TIME_S = 3;            // a pts so far from the one before is of a clock that was set, or of another stream
const NOTICE_MS = 3000, NOTICE = "One moment, please";   // a shorter break needs no words
const body = document.body;

const picture = $("picture");
const video = new FrameQueue(picture);
const backdrop = new Backdrop($("backdrop"), $("shade"));
const clock = new MonotonicClock(0.2);
const audio = new AudioPlayer(clock, 0.2, () => showSound());
const dialogue = new Dialogue($("heard"), $("said"));
const still = new Still($("still"), picture);
const attract = new Attract($("attract"));
const awake = new WakeLock();
const skew = new Skew();

let connection = null;
let hello = {};
let display = {};                // what the robot decides about this page: part of hello
let state = {};
let source = "monotonic";        // which clock leads
let newestPts = null;            // of a frame or of sound
let lastFrameMs = -Infinity;
let awayMs = null;               // since when there is no moving face
let hasTurn = false;             // the server has given it to the person at this page
let askedMs = -Infinity;         // when it was asked for

// ---------------------------------------------------------------- what arrives

function onMessage(message) {
  const now = performance.now();
  if (message.kind === FRAME || message.kind === AUDIO) followTime(message.pts);
  if (message.kind === FRAME) {
    lastFrameMs = now;
    clock.arrived(now, message.pts, source === "monotonic");
    video.push(message, clock.at(now));
  } else if (message.kind === AUDIO) {
    audio.push(message, now);
  } else if (message.kind === STATE) {
    state = readJson(message.payload);
    dialogue.push(state);
    if (state.turn?.problem && state.turn.page === hello.page) touch.problem(String(state.turn.problem).slice(0, 80));
    const mine = Boolean(state.turn?.phase) && state.turn.page === hello.page;
    if (hasTurn && !mine) microphone.close();
    hasTurn = mine;
    showState();
  } else if (message.kind === HELLO) {
    greet(readJson(message.payload));
  }
}

// Robots without a clock of their own start with a wrong one, which is then set: back by an hour, and every frame would be
// older than the one that was drawn; forward, and sound would be scheduled for then.
function followTime(pts) {
  if (newestPts !== null && Math.abs(pts - newestPts) > NEW_TIME_S) beginAnew();
  newestPts = pts;
}

// Nothing of the stream before is kept.
function beginAnew() {
  newestPts = null;
  clock.reset();
  video.reset();
  audio.clear();
  dialogue.reset();
  skew.reset();
}

function greet(message) {
  if (hello.version && message.version && hello.version !== message.version) location.reload();   // a newer page
  hello = message;
  display = hello.display ?? {};
  document.title = hello.title || "FlowAct";
  $("sign").textContent = hello.title || "";
  const bufferS = (Number(hello.buffer_ms) || 200) / 1000;
  audio.baseBufferS = bufferS;
  clock.bufferS = bufferS;
  beginAnew();
  microphone.close();
  hasTurn = false;
  dialog.hasPicture = display.background === "picture";
  settings.give({ captions: display.captions, background: display.background, attractAfter: display.attract_after_s });
  audio.resume();
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
    if (awayMs !== null) showFace();
    backdrop.paint(picture, now);
    still.offer(now, !state.speaking && !video.reduced);
  }
  if (heard !== null && video.drawnPts !== null && now - lastFrameMs < STALLED_MS) {
    skew.add((video.drawnPts - heard) * 1000);
  }
}

// ---------------------------------------------------------------- what is shown

// The moving face, or its breathing still, or nothing yet.
function showFace() {
  const moves = isLive() && video.drawnPts !== null && performance.now() - lastFrameMs <= STALLED_MS;
  if (moves) awayMs = null;
  else awayMs ??= performance.now();
  const face = moves ? "live" : still.there ? "still" : "none";
  if (body.dataset.face !== face) body.dataset.face = face;
  body.classList.toggle("stalled", isLive() && !moves && video.drawnPts !== null);
  if (face !== "none") body.classList.add("seen");
  const notice = face === "still" && performance.now() - awayMs > NOTICE_MS && body.dataset.connection !== "refused";
  $("notice").hidden = !notice;
  $("notice").textContent = NOTICE;
}

function isLive() { return body.dataset.connection === "live"; }

function showConnection(change, text) {
  if (change === "open") {
    body.dataset.connection = "live";
    $("waiting-text").textContent = FIRST_FRAME;
    wishQuality();
  } else if (change === "refused") {
    body.dataset.connection = "refused";
    $("waiting-text").textContent = text;
  } else if (isLive()) {
    body.dataset.connection = "reconnecting";
    audio.stop();                // half a word from before the break helps nobody
    dialogue.reset();
    microphone.close();
    hasTurn = false;
    state = { ...state, turn: {} };
    $("waiting-text").textContent = "Reconnecting";
  }
  showFace();
  showState();
}

function stateText() {
  if (!isLive()) return body.dataset.connection;
  if (state.message) return String(state.message).slice(0, 80);
  if (body.classList.contains("stalled")) return "no picture";
  const behaviour = String(state.behaviour || (state.speaking ? "speaking" : "idle")).toLowerCase().slice(0, 40);
  return behaviour === "idle" ? "ready" : behaviour;
}

function showState() {
  const text = stateText();
  if ($("corner-state").textContent !== text) {
    $("corner-state").textContent = text;
    $("announcer").textContent = text;
    if (isLive()) $("waiting-text").textContent = state.message ? text : FIRST_FRAME;
  }
  touch.show(state, display, hello.page, isLive() && body.dataset.face === "live");
  showSound();
}

function showSound() {
  body.dataset.sound = audio.state;
  const silent = audio.state === "suspended" || audio.state === "interrupted";
  // Whoever is to touch the screen anyway brings the sound with that.
  $("sound").hidden = !silent || ["talk", "yours"].includes(touch.action);
  $("turn").classList.toggle("beside", !$("sound").hidden);
}

function showSettings(values) {
  dialogue.turnOn(values.get("captions"));
  body.classList.toggle("large", values.get("largeCaptions"));
  body.classList.toggle("fill", values.get("fill"));
  body.classList.toggle("bare", !values.get("captions") && !display.stop && !["push", "page", "open"].includes(display.talk));
  $("corner").hidden = !values.get("corner");
  showGround($("ground"), values.get("background"));
  audio.setVolume(values.get("volume") / 100);
  wishQuality();
  dialog.show();
}

let wished = "";
function wishQuality() {
  const wish = `${connection?.opened} ${settings.get("quality")}`;
  if (!isLive() || wish === wished) return;
  wished = wish;
  connection.send({ type: "quality", want: settings.get("quality") });
}

setInterval(() => {
  showFace();
  showState();
  const idle = !state.speaking && ["", "idle"].includes(String(state.behaviour ?? "").toLowerCase()) && !state.turn?.phase;
  const texts = Array.isArray(display.attract_text) ? display.attract_text.map(String) : [];
  attract.tick(settings.get("attractAfter"), texts, idle && body.dataset.face === "live" && !dialog.open);
  if (microphone.stream && !hasTurn && performance.now() - askedMs > NOT_GIVEN_MS) microphone.close();
  const s = stats();
  connection.send({
    type: "stats", drawn: s.drawn, fps: s.fps, late: s.late, underruns: s.underruns, skips: s.skips,
    buffer_ms: s.bufferMs, skew_p50_ms: s.skew.p50, skew_p95_ms: s.skew.p95, clock: s.clock, audio: s.audio, awake: s.awake,
  });
  if (!$("details").hidden) showDetails($("details-list"), s, state);
}, 1000);

// ---------------------------------------------------------------- what a person does

function toggleFullScreen() {
  const done = document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen?.();
  done?.catch(() => body.classList.add("no-full-screen"));
}

function toggleDetails() {
  $("details").hidden = !$("details").hidden;
  if (!$("details").hidden) showDetails($("details-list"), stats(), state);
}

const settings = new Settings((values) => { if (connection) showSettings(values); });
const dialog = new SettingsDialog($("settings"), settings, {
  fullscreen: toggleFullScreen,
  details: () => { toggleDetails(); $("settings").close(); },
});
const microphone = new Microphone((message) => connection.sendVoice(message));
const touch = new Touch($("turn"), $("press"), $("stage"), {
  stop: () => connection.send({ type: "stop" }),
  talk,
  settings: () => dialog.toggle(),
  allowed: () => display.settings !== false,
  silent: () => !$("sound").hidden,
});

async function talk(on) {
  connection.send({ type: "talk", on });
  askedMs = performance.now();
  if (!on || display.talk !== "page") return;   // it hears on for a moment: the server closes the turn, and that closes it
  try {
    await microphone.open();
  } catch (error) {
    touch.problem(error.message);
    connection.send({ type: "talk", on: false });
    showState();
  }
}

function unlock() {
  if (!audio.running) audio.resume().then(showSound);
}
for (const event of ["pointerup", "keydown", "touchend"]) addEventListener(event, unlock, { passive: true });

const KEYS = {
  f: toggleFullScreen,
  c: () => settings.set("captions", !settings.get("captions")),
  d: toggleDetails,
  s: () => { if (display.settings !== false) dialog.toggle(); },
};
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const act = KEYS[event.key.toLowerCase()];
  if (act && event.target.tagName !== "SELECT") act();
  if (event.key === " " && event.target === body && touch.press(event)) event.preventDefault();
});
addEventListener("keyup", (event) => { if (event.key === " ") touch.release(event); });

let idleTimer = 0;
function pointerMoved() {
  body.classList.remove("idle");
  clearTimeout(idleTimer);
  idleTimer = setTimeout(() => body.classList.add("idle"), 3000);
}
addEventListener("pointermove", pointerMoved, { passive: true });
pointerMoved();

// ---------------------------------------------------------------- for tests and the curious

function stats() {
  const lead = (source === "audio" ? audio.lead : clock.lead).best;
  return {
    connection: body.dataset.connection,
    connections: connection?.opened ?? 0,
    run: hello.run ?? null,
    page: hello.page ?? null,
    ...video.counters,
    fps: video.fps(),
    size: `${picture.width} × ${picture.height}`,
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
    skew: skew.figures(),
    awake: awake.state,
    state,
  };
}

window.flowact = { stats, audio, video, clock, still, skewSamples: () => [...skew.values] };

// Relative to the page: a proxy may serve it below a path of its own.
const address = new URL("ws", location.href);
address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
address.search = address.hash = "";
connection = new Connection(address.href, onMessage, showConnection);
showSettings(settings);
showSound();
still.restore().then(showFace);
requestAnimationFrame(refresh);
