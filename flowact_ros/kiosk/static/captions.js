// SPDX-License-Identifier: Apache-2.0
// What both sides say, word by word at the times at which words are heard.

const LINGER_S = 3.5;      // of a caption after its last word
const LONGEST = 110;       // characters: of more the end is shown, which is what is being said

class Side {
  constructor(element) {
    this.element = element;
    this.coming = [];      // captions whose time has not come
    this.newest = "";
    this.reset();
  }

  reset() {
    this.coming = [];
    this.shownPts = -Infinity;
    this.write("");
  }

  // {text, pts}: from then on this is to be read. The same one comes again with every state.
  push(caption) {
    if (typeof caption?.text !== "string" || typeof caption.pts !== "number") return;
    const key = `${caption.pts} ${caption.text}`;
    if (key === this.newest) return;
    this.newest = key;
    this.coming.push(caption);
    if (this.coming.length > 50) this.coming.shift();
  }

  show(content) {
    while (this.coming.length && this.coming[0].pts <= content) {
      const caption = this.coming.shift();
      this.shownPts = caption.pts;
      this.write(caption.text);
    }
    if (content - this.shownPts > LINGER_S) this.write("");
  }

  write(text) {
    const short = text.length > LONGEST ? `… ${text.slice(text.indexOf(" ", text.length - LONGEST) + 1)}` : text;
    if (this.element.textContent !== short) this.element.textContent = short;
    this.element.hidden = !short;
  }
}

export class Dialogue {
  // Elements of the user's words and of the avatar's.
  constructor(heard, said) {
    this.user = new Side(heard);
    this.avatar = new Side(said);
    this.on = true;
  }

  reset() {
    this.user.reset();
    this.avatar.reset();
  }

  turnOn(on) {
    if (this.on && !on) this.reset();
    this.on = on;
  }

  push(state) {
    if (!this.on) return;
    this.user.push(state.heard);
    this.avatar.push(state.said);
  }

  // content: seconds of the content clock, as pts.
  show(content) {
    if (!this.on) return;
    this.user.show(content);
    this.avatar.show(content);
    if (this.user.shownPts > this.avatar.shownPts) this.avatar.write("");  // his turn: what was answered before is over
  }
}
