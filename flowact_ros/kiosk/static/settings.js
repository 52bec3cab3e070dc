// SPDX-License-Identifier: Apache-2.0
// The page's settings: what the robot gives, and above it what somebody has chosen at this screen, which is kept.

// Quiet grounds that any character's clothes stand out from; "" is the picture's own colours.
const COLOURS = [
  ["", "Like the picture"], ["picture", "The robot's picture"], ["#10131a", "Night"], ["#f2efe9", "Paper"],
  ["#1f3a4d", "Harbour"], ["#2e4a3f", "Forest"], ["#5b3a4a", "Plum"], ["#c9d6df", "Mist"],
];

export class Settings {
  // onChange(settings) is called at once, and whenever something changes.
  constructor(onChange) {
    this.onChange = onChange;
    this.key = `flowact.settings ${location.pathname}`;
    this.given = {
      captions: true, largeCaptions: false, volume: 100, background: "", fill: false, corner: true, quality: "auto",
      attractAfter: 0,
    };
    this.chosen = {};
    try {
      this.chosen = this.checked(JSON.parse(localStorage.getItem(this.key) ?? "{}"));
    } catch (error) {
      this.failure = String(error);   // storage that is switched off, or holds something else: nothing was chosen
    }
  }

  // Only what fits: a browser's storage outlives versions of this page.
  checked(values) {
    const kept = {};
    for (const [name, value] of Object.entries(values ?? {})) {
      if (name in this.given && typeof value === typeof this.given[name]) kept[name] = value;
    }
    return kept;
  }

  get(name) { return this.chosen[name] ?? this.given[name]; }

  // What the robot says: { name: value }.
  give(values) {
    Object.assign(this.given, this.checked(values));
    this.onChange(this);
  }

  set(name, value) {
    if (value === this.given[name]) delete this.chosen[name];
    else this.chosen[name] = value;
    this.keep();
  }

  reset() {
    this.chosen = {};
    this.keep();
  }

  keep() {
    try {
      localStorage.setItem(this.key, JSON.stringify(this.chosen));
    } catch (error) {
      this.failure = String(error);   // it holds until the page is closed
    }
    this.onChange(this);
  }
}

// The dialog behind a long press. actions: { fullscreen, details }, what its buttons do.
export class SettingsDialog {
  constructor(dialog, settings, actions) {
    this.dialog = dialog;
    this.settings = settings;
    this.form = dialog.querySelector("form");
    this.hasPicture = false;
    this.form.addEventListener("input", (event) => this.read(event.target));
    for (const [name, act] of Object.entries({ ...actions, reset: () => settings.reset() })) {
      this.form.elements[name].addEventListener("click", () => { act(); this.show(); });
    }
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  }

  get open() { return this.dialog.open; }

  toggle() {
    if (this.dialog.open) {
      this.dialog.close();
    } else {
      this.dialog.showModal();
      this.dialog.focus();   // the first control would look as if it were chosen
      this.show();
    }
  }

  read(input) {
    if (!input.name) return;
    const value = input.type === "checkbox" ? input.checked
      : input.type === "range" || input.name === "attractAfter" ? Number(input.value) : input.value;
    this.settings.set(input.name, value);
  }

  // Brings what is shown in line with the settings.
  show() {
    if (!this.dialog.open) return;
    const chosen = this.settings.get("background");
    const known = COLOURS.some(([colour]) => colour === chosen);
    const colours = COLOURS.filter(([colour]) => colour !== "picture" || this.hasPicture);
    this.swatches([...colours, ...(known ? [] : [[chosen, "The robot's colour"]])], chosen);
    for (const name of Object.keys(this.settings.given)) {
      const input = this.form.elements[name];
      const value = this.settings.get(name);
      if (!input || name === "background") continue;
      if (input.type === "checkbox") input.checked = value;
      else if (input.tagName === "SELECT") this.select(input, String(value));
      else input.value = value;
    }
  }

  swatches(colours, chosen) {
    const shown = colours.map(([colour]) => colour).join(" ");
    if (this.swatchesShown !== shown) {
      this.swatchesShown = shown;
      document.getElementById("swatches").replaceChildren(...colours.map(([colour, name]) => {
        const input = document.createElement("input");
        Object.assign(input, { type: "radio", name: "background", value: colour, title: name });
        input.setAttribute("aria-label", name);
        if (colour.startsWith("#")) input.style.backgroundColor = colour;
        else input.dataset.kind = colour || "edges";
        return input;
      }));
    }
    for (const input of document.querySelectorAll("#swatches input")) input.checked = input.value === chosen;
  }

  // A value that the robot gave and the list does not have is added to it.
  select(input, value) {
    if (![...input.options].some((option) => option.value === value)) input.add(new Option(`After ${value} s`, value));
    input.value = value;
  }
}
