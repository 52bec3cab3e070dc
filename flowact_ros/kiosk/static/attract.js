// SPDX-License-Identifier: Apache-2.0
// When nobody has been here for a while the page invites people: a line of large text, and a picture that moves a little.

const NEXT_MS = 7000;

export class Attract {
  constructor(element) {
    this.element = element;
    this.activeMs = performance.now();
    this.shownMs = -Infinity;
    this.index = -1;
    for (const event of ["pointerdown", "keydown"]) addEventListener(event, () => this.active(), { passive: true });
  }

  // Somebody is here.
  active() {
    this.activeMs = performance.now();
    this.hide();
  }

  hide() {
    document.body.classList.remove("attract");
    this.element.hidden = true;
    this.index = -1;
  }

  // Called once a second. afterS: 0 means never; quiet: nobody speaks, and there is a face to invite to.
  tick(afterS, texts, quiet) {
    const now = performance.now();
    if (!quiet) this.activeMs = now;
    if (!afterS || now - this.activeMs < afterS * 1000) {
      if (document.body.classList.contains("attract")) this.hide();
      return;
    }
    document.body.classList.add("attract");
    if (!texts.length || (this.index >= 0 && (texts.length === 1 || now - this.shownMs < NEXT_MS))) return;
    this.shownMs = now;
    this.index = (this.index + 1) % texts.length;
    this.element.textContent = texts[this.index];
    this.element.hidden = false;
    // The animation begins anew with each text.
    this.element.classList.remove("enters");
    void this.element.offsetWidth;
    this.element.classList.add("enters");
  }
}
