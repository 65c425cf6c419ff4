// What the page does by itself in the browser, beside its sections: names and tooltips, downloads, links, the server.
window.unetPage = (() => {
  function download(file) {
    if (!file) return;
    const link = document.createElement("a");
    link.href = file.url;
    link.download = file.orig_name || "";
    link.click();
  }

  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Pages that are not served over https have no clipboard; a selected field can still be copied.
      const field = document.createElement("textarea");
      field.value = text;
      document.body.append(field);
      field.select();
      document.execCommand("copy");
      field.remove();
    }
  }

  // Names and tooltips that Gradio's components cannot be given; they are made anew with what they belong to.
  const HUB = "Choose a network, or type a bundle on the Hub: user/name or user/name@revision";
  const TITLES = {
    "#task label": "What the networks were trained to see",
    "#left input": HUB,
    "#right input": HUB,
    "#explanation > button": "How the two networks differ, and how they are measured",
    "#colours button": "Back to 8 colours",
    "#colours input": "How many colours the picture is shown in",
    "#space label": "Where k-means measures how far two colours are apart",
    ".waiting button": "Ask both networks the same once more",
    "#ask-colours label": "Ask both networks about the picture in k colours",
    "#measure": "Ask both networks about the picture in more and more colours, and draw what comes of it",
    "#downloads button": "Save the picture (PNG) or its colours",
    "#camera button:not(.secondary)": "Take a picture with the camera",
    "#camera .secondary": "Go on without one",
    "#examples button": "Show this example",
    "#batch-pictures .upload-container": "Choose pictures, or drop them here",
    "#batch-truths .upload-container": "Choose ground truths, or drop them here",
    ".label-clear-button": "Leave this file out",
    "#batch-begin": "Both networks, picture by picture",
    "#batch-stop": "Stop here, and keep what is done",
    "#batch-examples": "Both networks, on the examples of this task",
    "#inside > button": "Real sizes, feature maps, tiles, and what a skip is worth",
    ".tab-container button, [role=tab]": "Show this part",
    "#without-view label": "The answer without the skips, what changes, or the full answer",
    "#each-skip": "Run each network once without each of its skips",
    "#without-a button, #without-b button": "Show it larger",
    "#level label": "Which skip to look at; 0 is full resolution",
    "#tile label": "How large a part is answered at once",
    "footer button": "Every endpoint, with examples",
  };

  function name() {
    for (const [selector, title] of Object.entries(TITLES)) {
      for (const element of document.querySelectorAll(selector)) element.title ||= title;
    }
    // Its caption says what the picture is.
    for (const image of document.querySelectorAll("#examples button:has(.caption-label) img")) image.alt = "";
    for (const code of document.querySelectorAll("pre:not([tabindex])")) code.tabIndex = 0; // to scroll it by keys
    if (KINDS.every((kind) => document.querySelector(kind))) document.documentElement.classList.add("mounted");
    if (document.querySelector("#legend li") && document.querySelector(".chip")) answered();
  }

  // Gradio fetches each kind of component by itself, and draws those that have come: one of every kind.
  const KINDS = ["h1", "#task input", "#examples button", "#left input", "#colours input", "#ask-colours input", "#measure"];
  const answered = () => document.documentElement.classList.add("mounted", "answered");
  setTimeout(answered, 30_000); // if the answer takes long, the rest of the page is of use all the same

  let naming;
  new MutationObserver(() => {
    cancelAnimationFrame(naming);
    naming = requestAnimationFrame(name);
  }).observe(document.documentElement, { childList: true, subtree: true });

  // The part that a link jumps to is opened.
  document.addEventListener("click", (event) => {
    const place = event.target.closest?.("#jumps a")?.hash;
    const closed = place && document.querySelector(`${place} > .label-wrap:not(.open)`);
    if (closed) closed.click();
  });

  // A server that is gone is said once, and the page is of no use until it is back; Gradio then loads it anew.
  const gone = document.createElement("p");
  gone.id = "gone";
  gone.setAttribute("role", "alert");
  gone.textContent =
    "The page has lost its server. It comes back by itself; a picture of your own has to be dropped again.";
  const { fetch } = window;
  window.fetch = async (...request) => {
    try {
      const response = await fetch(...request);
      gone.remove();
      return response;
    } catch (error) {
      const address = String(request[0]?.url ?? request[0]);
      if (error.name !== "AbortError" && new URL(address, location).host === location.host) document.body.append(gone);
      throw error;
    }
  };

  // A part of the page as a dialog of the browser's own: Escape closes it, and the keyboard stays inside.
  function open(id) {
    let dialog = document.getElementById(`${id}-dialog`);
    if (!dialog) {
      const content = document.getElementById(id);
      dialog = document.createElement("dialog");
      dialog.id = `${id}-dialog`;
      dialog.ariaLabel = "Card of the network";
      dialog.innerHTML = '<form method="dialog"><button aria-label="Close" title="Close">✕</button></form>';
      content.before(dialog);
      dialog.append(content);
      dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    }
    dialog.showModal();
    dialog.scrollTop = 0;
  }

  // The palette's own script may come later than the first picture.
  async function repaint() {
    while (!window.unetPalette) await new Promise(requestAnimationFrame);
    unetPalette.repaint();
  }

  // A link restores what is seen, a person's own picture apart. The address follows once something was touched.
  let link = location.href;
  let touched = false;
  let linkTimer;
  for (const name of ["pointerdown", "keydown", "input"]) {
    document.addEventListener(name, () => (touched = true), { once: true, capture: true });
  }

  function remember(task, example, left, right, k, space, quantised) {
    const url = new URL(location.href);
    const values = { task, example, left, right, k, space, quantised: quantised ? "1" : "" };
    for (const [name, value] of Object.entries(values)) {
      if (value) url.searchParams.set(name, value);
      else url.searchParams.delete(name);
    }
    link = url.href;
    if (!touched) return;
    clearTimeout(linkTimer); // browsers refuse many changes in a short time, as while a slider is dragged
    linkTimer = setTimeout(() => history.replaceState(history.state, "", link), 250);
  }

  document.addEventListener("click", async (event) => {
    const button = event.target.closest?.("[data-copy-link]");
    if (!button) return;
    await copy(link);
    const note = document.querySelector("#jumps [role=status]");
    note.textContent = new URL(link).searchParams.has("example")
      ? "Copied: example, networks and settings."
      : "Copied: networks and settings. Your own picture is not in the link.";
    setTimeout(() => (note.textContent = ""), 5000);
  });

  // Examples of code, with the address at which the page is being read.
  function withAddress(...texts) {
    const here = location.origin + location.pathname.replace(/\/$/, "");
    return texts.map((text) => text.replaceAll("http://127.0.0.1:7860", here));
  }

  return { download, copy, isTouched: () => touched, open, remember, repaint, withAddress };
})();
