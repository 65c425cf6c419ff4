// What the page does by itself in the browser: take a picture dropped anywhere, copy a colour, start a download, notice
// that a slider rests.
window.unetPage = (() => {
  const REST = 600; // milliseconds without a change
  let timer;

  function whenSettled(buttonId) {
    clearTimeout(timer);
    timer = setTimeout(() => document.getElementById(buttonId)?.click(), REST);
  }

  // Closed, the section about the networks costs nothing.
  function lookInside() {
    if (document.querySelector("#inside .label-wrap.open")) document.getElementById("look-inside").click();
  }

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

  // A picture may be dropped or pasted anywhere on the page, also while another one is in the box.
  function take(files, event) {
    const picture = [...(files ?? [])].find((file) => file.type.startsWith("image/") || file.type === "");
    const input = document.querySelector("#picture input[type=file]");
    if (!picture || !input || event.target.closest?.("#truth, #many-files")) return;
    event.preventDefault();
    event.stopPropagation();
    const one = new DataTransfer();
    one.items.add(picture);
    input.files = one.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  }

  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => take(event.dataTransfer?.files, event), true);
  document.addEventListener("paste", (event) => take(event.clipboardData?.files, event), true);

  document.addEventListener("click", async (event) => {
    const chip = event.target.closest?.(".chip[data-hex]");
    if (!chip) return;
    await copy(chip.dataset.hex);
    chip.classList.add("copied");
    setTimeout(() => chip.classList.remove("copied"), 1200);
  });

  // Names and tooltips that Gradio's components cannot be given; they are made anew with what they belong to.
  const HUB = "Choose a network, or type a bundle on the Hub: user/name or user/name@revision";
  const TITLES = {
    "#task label": "What the networks were trained to see",
    "#left input": HUB,
    "#right input": HUB,
    '#picture button[aria-label="Upload file"]': "Choose a picture from this device",
    '#picture button[aria-label="Capture from camera"]': "Take a picture",
    '#picture button[aria-label="Paste from clipboard"]': "Paste a picture",
    "#explanation > button": "How the two networks differ, and how they are measured",
    "#colours button": "Back to 8 colours",
    "#colours input": "How many colours the picture is shown in, 2 to 64",
    "#space label": "Where k-means measures how far two colours are apart",
    "#quantised label": "Ask the networks about the picture in k colours",
    "#downloads button": "Save this",
    "#examples button": "Show this example",
    "#painted button": "Show it larger",
    "#many-pictures button": "Choose pictures, or drop them here",
    "#many-truths button": "Choose ground truths, or drop them here",
    "#many-buttons button": "Both networks, picture by picture",
    "#inside > button": "Real sizes, feature maps, tiles, and what a skip is worth",
    ".tab-container button, [role=tab]": "Show this part",
    "#without-view label": "The answer without the skips, what changes, or the full answer",
    "#cuts-a label, #cuts-b label": "Let this skip carry zeros",
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
    document.querySelector("#painted button:has(.image-frame)")?.setAttribute("aria-label", "The picture in k colours");
    for (const code of document.querySelectorAll("pre:not([tabindex])")) code.tabIndex = 0; // to scroll it by keys
    if (document.querySelector("#examples button")) document.documentElement.classList.add("mounted");
    if (document.querySelector("#legend li") && document.querySelector(".chip")) answered();
  }

  const answered = () => document.documentElement.classList.add("mounted", "answered");
  setTimeout(answered, 15_000); // if the answer takes long, the rest of the page is of use all the same

  let naming;
  new MutationObserver(() => {
    cancelAnimationFrame(naming);
    naming = requestAnimationFrame(name);
  }).observe(document.documentElement, { childList: true, subtree: true });

  // What is drawn as HTML has no handlers of its own: it presses a button that has.
  document.addEventListener("click", (event) => {
    const name = event.target.closest?.("[data-press]")?.dataset.press;
    if (name) document.getElementById(name)?.click();
  });

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

  // A link restores what is seen, a person's own picture apart. The address follows once something was touched.
  let link = location.href;
  let touched = false;
  let linkTimer;
  for (const name of ["pointerdown", "keydown"]) {
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
    const note = button.parentElement.querySelector("[role=status]");
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

  return { whenSettled, lookInside, download, open, remember, withAddress };
})();
