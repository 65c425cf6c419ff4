// ---- words beside it -------------------------------------------------------------------------------------------------

const KEYS = {
  Overlay: "Each network’s classes over the picture.",
  Masks: "Each network’s classes alone.",
  Outline: "Where each network draws the borders of its classes.",
  Disagreement: "Pale: both agree. Coloured: what each says where they differ.",
  Errors: "Pale: right. Coloured: its wrong answer. Striped: not labelled.",
};
const DIFFERENCE = { curtain: "", grid: " Stripes: both classes." };

/** What the two halves of the stage show, left and right. */
function halves() {
  return look.view === "Colours" ? ["original", colours ? `${colours.k} colours` : "k colours"] : answer.sides ?? ["left", "right"];
}

/** Everything around the pictures that depends on the answer or on how it is looked at. */
function describe() {
  const hasTruth = Boolean(answer.truth);
  if (look.view === "Errors" && answer.labels && !hasTruth) look.view = "Overlay";
  const errorsChoice = find('input[value="Errors"]');
  errorsChoice.disabled = !hasTruth;
  errorsChoice.parentElement.title = hasTruth ? "Where each network is wrong" : "Needs a ground truth";
  find(`input[value="${look.view}"]`).checked = true;
  find(`input[value="${look.layout}"]`).checked = true;
  root.dataset.layout = look.layout;
  root.dataset.view = look.view;
  mind();

  const opacity = find(".opacity input");
  opacity.disabled = look.view !== "Overlay";
  find(".opacity output").textContent = `${opacity.value} %`;

  const badge = find(".badge");
  badge.hidden = !answer.colors || !answer.labels;
  badge.firstElementChild.textContent = `answered in ${answer.colors} colours`;

  const [left, right] = halves();
  const below = look.view === "Errors" ? ["ground truth", "who is wrong"] : ["picture", "where they differ"];
  const titles = [left, right, ...(look.view === "Colours" ? ["", ""] : below)];
  [...find(".titles").children].forEach((title, i) => (title.textContent = titles[i]));
  find(".divider").setAttribute("aria-label", `Divider: ${left} left of it, ${right} right of it`);
  find(".view-key").replaceChildren(...key());
  markLegend();
}

function key() {
  if (look.view === "Colours") return [make("span", `Left the picture, right the same in ${halves()[1]}.`)];
  if (look.view === "Confidence" && answer.classes) {
    const ramp = make("i");
    ramp.style.background = `linear-gradient(90deg, ${DOUBT.map((c) => `rgb(${c})`)})`;
    const guess = `a guess, ${Math.round(100 / answer.classes.length)} %`;
    return [make("span", "sure, 100 %"), ramp, make("span", guess)];
  }
  if (look.view === "Errors" && look.layout === "grid") {
    const who = [`${answer.sides[0]} alone`, `${answer.sides[1]} alone`, "both"];
    return who.flatMap((text, i) => {
      const dot = make("b");
      dot.style.background = `rgb(${WRONG[i]})`;
      return [dot, make("span", text)];
    });
  }
  const extra = look.view === "Disagreement" ? DIFFERENCE[look.layout] : "";
  return [make("span", KEYS[look.view] + extra)];
}

function make(name, text = "") {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

// ---- what can be saved ---------------------------------------------------------------------------------------------

function menu() {
  if (!answer.labels) return [];
  const size = `${answer.width} × ${answer.height}`;
  const view = look.view.toLowerCase();
  const seen = look.view === "Colours" ? [1] : [0, 1];
  return [
    menuItem("Comparison", "both sides, names, legend", () => download(comparison(), `comparison-${view}.png`)),
    ...seen.map((i) => menuItem(`${halves()[i]}, ${view}`, size, () => download(side(i), `${halves()[i]}-${view}.png`))),
    ...answer.sides.map((name, i) =>
      menuItem(`${name}, label map`, [...answer.full_size].reverse().join(" × "), () => trigger("save_labels", { side: i })),
    ),
  ];
}

function menuItem(what, size, action) {
  const item = make("button", what);
  item.type = "button";
  item.append(make("small", `PNG, ${size}`));
  item.addEventListener("click", () => {
    find(".save").open = false;
    action();
  });
  return item;
}

/** A side as it is drawn now, pixel by pixel of the picture. */
function side(i) {
  const sheet = blank();
  paintPane(sheet.getContext("2d"), ["left", "right"][i]);
  return sheet;
}

/** Both sides as they are drawn now, with names, scores and legend, to be laid on a slide. */
function comparison() {
  const [width, gap, line] = [760, 24, 30];
  const height = Math.round((width * answer.height) / answer.width);
  const legend = look.view === "Colours" ? [] : answer.classes.filter((c) => c.painted && !look.hidden.has(c.name));
  const rows = Math.ceil(legend.length / 6);
  const sheet = document.createElement("canvas");
  [sheet.width, sheet.height] = [2 * width + 3 * gap, height + 2 * gap + 2 * line + (rows + 1) * line];
  const pen = sheet.getContext("2d");
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, sheet.width, sheet.height);
  pen.imageSmoothingQuality = "high";
  const write = (text, x, y, font, color = "#1d2127") => {
    [pen.font, pen.fillStyle] = [`${font} "IBM Plex Sans", sans-serif`, color];
    pen.fillText(text, x, y);
  };
  halves().forEach((name, i) => {
    const x = gap + i * (width + gap);
    write(name, x, gap + 20, "700 24px");
    const miou = answer.miou?.[i];
    if (miou && look.view !== "Colours") write(`mIoU ${miou}`, x + width - 150, gap + 20, "400 20px", "#5f636a");
    pen.drawImage(side(i), x, gap + line, width, height);
  });
  const y = gap + line + height + line;
  if (look.view !== "Colours") {
    const asked = answer.colors ? `, asked in ${answer.colors} colours` : "";
    write(`They agree on ${answer.agreement} of the picture${asked}.`, gap, y, "400 20px", "#5f636a");
  }
  legend.forEach(({ name, color }, i) => {
    const [x, below] = [gap + (i % 6) * ((2 * width + gap) / 6), y + line * (1 + Math.floor(i / 6))];
    pen.fillStyle = `rgb(${color})`;
    pen.fillRect(x, below - 15, 18, 18);
    write(name, x + 26, below, "400 18px");
  });
  return sheet;
}

function download(sheet, name) {
  sheet.toBlob((png) => {
    const link = make("a");
    link.href = URL.createObjectURL(png);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  });
}

// ---- waiting -------------------------------------------------------------------------------------------------------

const PATIENCE = 700; // milliseconds in the queue, after which it is spoken of
let queued = 0; // since when

/** Says how far the networks are, while they work; Gradio's own tracker knows, and is not shown. */
function mind() {
  const tracker = element.closest("#viewer")?.querySelector("[data-testid=status-tracker]");
  const busy = Boolean(tracker && !tracker.classList.contains("hide"));
  const failed = busy && Boolean(tracker.querySelector(".error"));
  const waiting = busy || Boolean(answer && !answer.labels);
  document.documentElement.classList.toggle("asking", waiting && !failed);
  const words = busy ? tracker.textContent : "";
  const before = Number(/queue:\s*(\d+)/.exec(words)?.[1] ?? 0);
  queued = before ? queued || performance.now() : 0;
  const tiles = /(\d+)\/(\d+)\s*tiles/.exec(words);
  let said = "Asking both networks…";
  if (failed) {
    said = "The networks did not answer.";
  } else if (before && performance.now() - queued > PATIENCE) {
    said = `Asking both networks, ${before} ${before === 1 ? "question" : "questions"} before yours`;
  } else if (tiles) {
    said = `${/Network \d/.exec(words)?.[0] ?? "Networks"}: ${tiles[1]} of ${tiles[2]} tiles`;
  }
  const line = find(".waiting");
  line.hidden = !waiting;
  line.classList.toggle("failed", failed);
  if (line.firstElementChild.textContent !== said) line.firstElementChild.textContent = said;
}

// ---- about classes and pixels ----------------------------------------------------------------------------------------

// The legend comes from the server with every answer; which classes are seen is known here.
function markLegend() {
  const legend = document.getElementById("legend");
  if (!legend || !answer?.classes) return;
  for (const button of legend.querySelectorAll("button[data-class]")) {
    const index = Number(button.dataset.class);
    const seen = !look.hidden.has(answer.classes[index]?.name);
    button.setAttribute("aria-pressed", seen);
    const swatch = button.querySelector(".swatch");
    swatch.style.backgroundImage = look.patterns ? `url(${patternOf(index)})` : "";
  }
  const all = legend.querySelector("button[data-all]");
  if (all) all.hidden = look.hidden.size === 0;
}

function patternOf(index) {
  const { color } = answer.classes[index] ?? {};
  if (!color) return "";
  const swatch = document.createElement("canvas");
  swatch.width = swatch.height = 28;
  const pen = swatch.getContext("2d");
  pen.fillStyle = `rgb(${color})`;
  pen.fillRect(0, 0, 28, 28);
  pen.fillStyle = luma(color) > 90 ? "rgb(0 0 0 / 55%)" : "rgb(255 255 255 / 43%)";
  for (let y = 0; y < 28; y++) for (let x = 0; x < 28; x++) if (onStroke(index, x, y, 12)) pen.fillRect(x, y, 1, 1);
  return swatch.toDataURL();
}

function toggle(index, alone) {
  const { name } = answer.classes[index];
  const others = answer.classes.map((c) => c.name).filter((other) => other !== name);
  if (alone) look.hidden = new Set(others);
  else if (!look.hidden.delete(name)) look.hidden.add(name);
  forgetInk();
}

function forgetInk() {
  const kept = layers.get("fog");
  layers = new Map(kept ? [["fog", kept]] : []);
  markLegend();
  draw();
}

/** Both networks' words on the pixel pointed at, else on the one that was clicked. */
function readOut() {
  const at = pointed ?? pinned;
  const line = find(".readout");
  line.classList.toggle("empty", !at || !answer.labels);
  if (!at || !answer.labels) {
    const how = matchMedia("(hover: none)").matches ? "Tap" : "Point at";
    find(".where").textContent = `${how} the picture to see what each network says there.`;
    return;
  }
  const i = at.y * answer.width + at.x;
  find(".where").textContent = `x ${at.x}, y ${at.y}`;
  answer.sides.forEach((side, s) => {
    say(`.said.side-${"ab"[s]}`, answer.labels[s][i], `${side}: `, `, ${certainty(answer.confidences[s][i])}`);
  });
  const truth = find(".said.truth");
  truth.hidden = !answer.truth;
  if (answer.truth) say(".said.truth", answer.truth[i], "truth: ", "");
}

function say(selector, label, before, after) {
  const said = find(selector);
  const { name, color, painted } = answer.classes[label] ?? { name: "unlabelled", color: [128, 128, 128], painted: false };
  const [swatch, text] = said.children;
  swatch.style.background = painted ? `rgb(${color})` : "";
  text.replaceChildren(before, make("b", name), after);
}

function certainty(level) {
  return level > 253 ? "> 99 %" : `${Math.round((100 * level) / 255)} %`;
}

/** For those who listen: what a click or the keyboard's cursor found. */
function speak() {
  readOut();
  find("[aria-live]").textContent = find(".readout").innerText.replace(/\s+/g, " ");
}

