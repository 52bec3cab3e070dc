// SPDX-License-Identifier: Apache-2.0
// All avatars that the robot of this page hears, with their figures; asked for once a second.

const EVERY_MS = 1000, LOOK_MS = 6000;
const STATUS = { ok: "Running", warn: "Attention", error: "Fault", silent: "Silent" };
const COUNTED = { ok: ["running", "running"], warn: ["needs attention", "need attention"], error: ["has a fault", "have a fault"],
  silent: ["is silent", "are silent"] };

// name of the figure, key of the metrics, how it is written, and when it is worth a look.
const FIGURES = [
  ["Frames a second", "fps", (v) => v.toFixed(0), (v) => v < 24],
  ["Load", "load", (v) => `${(100 * v).toFixed(0)} %`, (v) => v > 1],
  ["Speech to frame", "ttff", (v) => `${v.toFixed(2)} s`, (v) => v > 1],
  ["Repeated or dropped", "lost", (v) => String(v), () => false],
];
const MORE = [
  ["real-time factor", "real_time_factor", (v) => v.toFixed(2)], ["… p95", "real_time_factor_p95", (v) => v.toFixed(2)],
  ["step", "step_ms", (v) => `${v.toFixed(0)} ms`], ["made ahead", "ring_fill", (v) => `${v.toFixed(2)} s`],
  ["frames", "frames", String], ["repeated", "repeated_frames", String], ["dropped", "dropped_frames", String],
  ["underruns", "underruns", String], ["rewinds", "rewinds", String],
  ["picture – sound", "av_skew", (v) => `${(1000 * v).toFixed(0)} ms`], ["stops within", "barge_in_stop", (v) => `${v.toFixed(2)} s`],
  ["motion alarms", "motion_alarms_raised", String], ["memory resets", "memory_resets", String],
];

const began = performance.now();
const cards = new Map();   // by namespace

function text(element, words) {
  if (element.textContent !== words) element.textContent = words;
}

// A list of [term, description, notable] without touching what has not changed.
function fill(list, rows) {
  while (list.children.length < rows.length) {
    const row = document.createElement("div");
    row.append(document.createElement("dt"), document.createElement("dd"));
    list.append(row);
  }
  rows.forEach(([term, description, notable], i) => {
    const row = list.children[i];
    text(row.firstElementChild, term);
    text(row.lastElementChild, description);
    row.classList.toggle("notable", Boolean(notable));
  });
}

function card(avatar) {
  let element = cards.get(avatar.namespace);
  if (!element) {
    element = document.getElementById("card").content.firstElementChild.cloneNode(true);
    cards.set(avatar.namespace, element);
  }
  return element;
}

function written(metrics, key, write) {
  const value = metrics[key];
  return typeof value === "number" ? write(value) : "–";
}

function doing(avatar) {
  if (avatar.status !== "silent") return avatar.alarms.length ? `${avatar.behaviour} – ${avatar.alarms.join(", ")}` : avatar.behaviour;
  if (avatar.silent_s === null) return "nothing heard of it yet";
  const s = avatar.silent_s;
  return `nothing heard for ${s < 90 ? `${s.toFixed(0)} s` : `${(s / 60).toFixed(0)} min`}`;
}

function show(avatar) {
  const element = card(avatar);
  const $ = (selector) => element.querySelector(selector);
  element.dataset.status = avatar.status;
  text($("h2"), avatar.namespace);
  text($(".status"), STATUS[avatar.status] ?? avatar.status);
  text($(".doing"), doing(avatar));
  const image = $("img");
  if (avatar.picture && image.dataset.shown !== avatar.picture) {
    image.dataset.shown = avatar.picture;
    image.src = `data:image/jpeg;base64,${avatar.picture}`;
    image.alt = `Face of ${avatar.namespace}`;
    image.hidden = false;
  }
  const metrics = { ...avatar.metrics };
  if ("repeated_frames" in metrics) metrics.lost = metrics.repeated_frames + metrics.dropped_frames;
  const stale = avatar.status === "silent";
  fill($(".figures"), FIGURES.map(([name, key, write, odd]) => [
    name, written(metrics, key, write), !stale && typeof metrics[key] === "number" && odd(metrics[key]),
  ]));
  fill($(".more"), MORE.map(([name, key, write]) => [name, written(metrics, key, write)]));
  const nodes = $(".nodes");
  nodes.replaceChildren(...avatar.nodes.map((node) => {
    const item = document.createElement("li");
    const gone = node.age_s > 3.5;
    item.dataset.level = gone ? "silent" : ["ok", "warn", "error"][node.level] ?? "error";
    const name = document.createElement("b"), message = document.createElement("span");
    name.textContent = node.name;
    message.textContent = gone ? `silent for ${node.age_s.toFixed(0)} s` : node.message;
    item.append(name, message);
    return item;
  }));
  const link = $(".page");
  link.hidden = !reachable(avatar.page);
  if (!link.hidden) link.href = avatar.page;
  return element;
}

// A page that is served on loopback only can be opened on its own machine.
function reachable(page) {
  if (!/^https?:\/\//.test(page)) return false;
  const local = (name) => name === "localhost" || name === "[::1]" || name.startsWith("127.");
  return !local(new URL(page).hostname) || local(location.hostname);
}

function summary(answer) {
  const { avatars } = answer;
  if (!avatars.length) {
    return answer.known && performance.now() - began > LOOK_MS
      ? "No avatar is heard from here. It must run in the same ROS_DOMAIN_ID, and this machine must be allowed to hear it."
      : "Looking for avatars";
  }
  const count = (status) => avatars.filter((avatar) => avatar.status === status).length;
  const parts = Object.keys(STATUS).filter(count).map((status) => `${count(status)} ${COUNTED[status][count(status) > 1 ? 1 : 0]}`);
  return `${avatars.length} ${avatars.length === 1 ? "avatar" : "avatars"}: ${parts.join(", ")}`;
}

async function refresh() {
  try {
    const answer = await fetch("fleet.json", { cache: "no-store" });
    if (!answer.ok) throw new Error((await answer.text()).trim() || `the server answers ${answer.status}`);
    const fleet = await answer.json();
    document.body.classList.remove("away");
    text(document.getElementById("summary"), summary(fleet));
    const shown = fleet.avatars.map(show);
    const main = document.getElementById("avatars");
    if (shown.length !== main.children.length || shown.some((element, i) => main.children[i] !== element)) main.replaceChildren(...shown);
  } catch (error) {
    document.body.classList.add("away");
    text(document.getElementById("summary"), error instanceof TypeError ? "The robot of this page does not answer; it is asked again" : error.message);
  }
  setTimeout(refresh, EVERY_MS);
}

refresh();
