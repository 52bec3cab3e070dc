// SPDX-License-Identifier: Apache-2.0
// What a person does at the screen: touches the face or the button (or presses Space), and what that means just now.

const HOLD_MS = 400;         // held longer, the button is a push-to-talk key: letting go ends the turn
const LONG_PRESS_MS = 1200;  // on the picture: settings
const RING_MS = 350;         // of that nothing is to be seen: a tap is no long press
const MOVED_PX = 14;         // further than a finger trembles
const PROBLEM_MS = 5000;

const LABELS = {
  stop: "Touch to stop", talk: "Touch to talk", yours: "Your turn", mine: "I'm listening", opening: "One moment",
  others: "Somebody is talking", listening: "Listening", thinking: "Thinking",
};
const PRESSABLE = new Set(["stop", "talk", "yours", "mine"]);

// What the button is for: one of LABELS, or "" when there is nothing to do.
export function actionOf(state, display, page) {
  const turn = state.turn ?? {};
  const behaviour = String(state.behaviour ?? "").toLowerCase();
  if (turn.phase) return turn.page !== page ? "others" : turn.phase === "open" ? "mine" : "opening";
  if (state.speaking) return display.stop === true ? "stop" : "";
  if (behaviour === "thinking") return "thinking";
  if (behaviour !== "idle" && behaviour !== "listening") return "";
  if (display.talk === "push" || display.talk === "page") return "talk";
  if (state.listens !== true) return "";
  if (behaviour === "listening") return "listening";
  return "yours";
}

export class Touch {
  // button: the element. talk(on), stop(): what the avatar is told. settings(): opens them. allowed(): may they be opened?
  // silent(): the next touch is for the sound alone.
  constructor(button, ring, surface, { talk, stop, settings, allowed, silent }) {
    Object.assign(this, { button, ring, talk, stop, settings, allowed, silent });
    this.action = "";
    this.canTalk = false;
    this.problemUntil = 0;
    this.pressed = null;      // {action, since}: by the button or by Space
    // How long it was held is the time between the touches, not between their handlers: a busy page would take a tap
    // for a hold, and end the turn that it began.
    button.addEventListener("pointerdown", (event) => { if (event.button === 0) this.press(event); });
    for (const name of ["pointerup", "pointercancel"]) addEventListener(name, (event) => this.release(event));
    // A click without a pointer is one by keyboard or by a screen reader.
    button.addEventListener("click", (event) => { if (event.detail === 0) this.press(event); this.pressed = null; });
    this.watchSurface(surface);
  }

  // display: as hello has it.
  show(state, display, page, live) {
    this.canTalk = display.talk === "push" || display.talk === "page" || display.talk === "open";
    this.action = live ? actionOf(state, display, page) : "";
    const problem = performance.now() < this.problemUntil ? this.problemText : "";
    const pressable = PRESSABLE.has(this.action) && !(this.action === "yours" && !this.canTalk);
    this.button.hidden = !this.action && !problem;
    this.button.dataset.action = problem ? "problem" : this.action;
    this.button.disabled = !pressable || Boolean(problem);
    const text = problem || LABELS[this.action] || "";
    const span = this.button.lastElementChild;
    if (span.textContent !== text) span.textContent = text;
  }

  // Something prevented it: one line, for a while in place of the button.
  problem(text) {
    this.problemText = text;
    this.problemUntil = performance.now() + PROBLEM_MS;
  }

  press(event) {
    const { action } = this;
    if (this.button.disabled) return false;
    this.pressed = { action, since: event.timeStamp };
    if (action === "stop") this.stop();
    else if (action === "mine") this.talk(false);
    else this.talk(true);
    return true;
  }

  release(event) {
    const { pressed } = this;
    this.pressed = null;
    if (!pressed || event.timeStamp - pressed.since < HOLD_MS) return;
    if (pressed.action === "talk" || pressed.action === "yours") this.talk(false);
  }

  watchSurface(surface) {
    let start = null;
    const end = () => {
      clearTimeout(start?.timer);
      clearTimeout(start?.ringTimer);
      this.ring.hidden = true;
      start = null;
    };
    surface.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      end();
      start = { x: event.clientX, y: event.clientY, at: event.timeStamp };
      if (!this.allowed()) return;
      start.ringTimer = setTimeout(() => {
        this.ring.style.left = `${start.x}px`;
        this.ring.style.top = `${start.y}px`;
        this.ring.hidden = false;
      }, RING_MS);
      start.timer = setTimeout(() => { end(); this.settings(); }, LONG_PRESS_MS);
    });
    surface.addEventListener("pointermove", (event) => {
      if (start && Math.hypot(event.clientX - start.x, event.clientY - start.y) > MOVED_PX) end();
    });
    surface.addEventListener("pointerup", (event) => {
      const tap = start && event.timeStamp - start.at < HOLD_MS;
      end();
      if (tap && !this.silent() && this.press(event)) this.pressed = null;
    });
    for (const name of ["pointercancel", "pointerleave"]) surface.addEventListener(name, end);
    surface.addEventListener("contextmenu", (event) => event.preventDefault());   // what a long touch opens elsewhere
  }
}
