// The live camera. The next frame is taken when the answer to the last one is drawn, so none ever waits.
const SIDE = 320; // pixels of the frame that is sent, along its longer side
const PATIENCE = 10_000; // milliseconds without an answer
const LOADING = 60_000; // until the first one: networks may have to be loaded
const MINUTES = 10; // then the camera goes off by itself
const REFUSALS = {
  NotAllowedError: "The camera is not allowed: allow it in the address bar of the browser, then try again.",
  NotFoundError: "No camera was found: connect one, or choose a picture.",
  NotReadableError: "Another program uses the camera: close that, then try again.",
};

const live = element.querySelector(".live");
const panes = [...element.querySelectorAll("figure")];
const pace = element.querySelector(".pace");
const shot = document.createElement("canvas"); // the frame that is being asked about, at full size
const small = document.createElement("canvas"); // and as it is sent
const video = Object.assign(document.createElement("video"), { muted: true, playsInline: true });

let turn = 0; // counts how often it was switched; odd is on. A camera that comes in a later turn goes off again
let stream = null; // of the camera, once it is open
let number = 0; // of the newest frame
let asked = 0; // when
let late, over;
let pairs = []; // [when drawn, milliseconds since the frame was taken] of the last second

/** Why there is no camera, as a sentence. */
function refusal(error) {
  // Without https a browser has no mediaDevices.
  if (!navigator.mediaDevices) return "A browser gives its camera only to pages on https, or on this machine.";
  return REFUSALS[error.name] ?? "The camera does not start: try another one, or choose a picture.";
}

function show(on, sentence = "") {
  live.hidden = !stream;
  document.documentElement.classList.toggle("live-on", Boolean(stream));
  for (const control of document.querySelectorAll("[data-live]")) {
    control.setAttribute("aria-checked", on);
    control.closest("[id]").querySelector(".note").textContent = sentence;
  }
}

async function start() {
  const mine = ++turn;
  show(true);
  const here = document.documentElement.classList;
  while (!here.contains("mounted")) await new Promise(requestAnimationFrame); // until then the session has no networks
  let opened;
  try {
    opened = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 640 }, height: { ideal: 480 } } });
    if (mine === turn) await Object.assign(video, { srcObject: opened }).play();
  } catch (error) {
    if (mine === turn) stop(refusal(error));
  }
  if (mine !== turn) return opened?.getTracks().forEach((track) => track.stop());
  stream = opened;
  const [track] = stream.getVideoTracks();
  track.addEventListener("ended", () => stop("The camera is gone: connect it, then try again."));
  live.classList.toggle("mirrored", track.getSettings().facingMode !== "environment");
  over = setTimeout(() => stop(`The camera went off after ${MINUTES} minutes.`), MINUTES * 60_000);
  show(true);
  live.scrollIntoView({ block: "nearest" });
  sight.observe(live); // which tells at once whether they are in sight, then of every change
  ask();
}

function stop(sentence) {
  if (turn % 2 === 0) return;
  turn++;
  sight.disconnect();
  clearTimeout(late);
  clearTimeout(over);
  stream?.getTracks().forEach((track) => track.stop());
  video.srcObject = stream = null;
  pairs = [];
  pace.textContent = "";
  performance.clearMeasures("live answer");
  show(false, sentence);
}

function ask() {
  const { videoWidth: width, videoHeight: height } = video;
  const scale = SIDE / Math.max(width, height);
  Object.assign(shot, { width, height }).getContext("2d").drawImage(video, 0, 0);
  Object.assign(small, { width: Math.round(scale * width), height: Math.round(scale * height) });
  small.getContext("2d").drawImage(shot, 0, 0, small.width, small.height);
  const view = element.querySelector("[name=live-view]:checked").value;
  asked = performance.now();
  clearTimeout(late);
  late = setTimeout(() => stop("The page does not answer: try again in a moment."), pairs.length ? PATIENCE : LOADING);
  trigger("frame", { number: ++number, view, picture: small.toDataURL("image/jpeg", 0.85) });
}

async function draw(canvas, layer) {
  const image = new Image();
  if (layer) await Object.assign(image, { src: layer }).decode();
  const context = Object.assign(canvas, { width: shot.width, height: shot.height }).getContext("2d");
  context.drawImage(shot, 0, 0);
  context.imageSmoothingEnabled = false;
  if (layer) context.drawImage(image, 0, 0, shot.width, shot.height);
}

watch("value", async () => {
  const answer = props.value;
  if (!stream || answer?.number !== number) return; // of a camera that was switched off
  clearTimeout(late);
  await Promise.all(
    panes.map((pane, i) => {
      const { name, layer } = answer.panes[i];
      pane.querySelector("figcaption").textContent = pane.querySelector("canvas").ariaLabel = name;
      return draw(pane.querySelector("canvas"), layer);
    }),
  );
  if (!stream || answer.number !== number) return; // switched off while it was drawn
  const now = performance.now();
  performance.measure("live answer", { start: asked, end: now });
  pairs = [...pairs.filter(([when]) => now - when < 1000), [now, now - asked]];
  const lag = pairs.reduce((sum, pair) => sum + pair[1], 0) / pairs.length;
  pace.textContent = `${pairs.length} a second, ${(lag / 1000).toFixed(2)} s behind`;
  ask();
});

element.querySelector("[name=live-view]").checked = true;
element.querySelector("[data-stop]").addEventListener("click", () => stop());
document.addEventListener("click", (event) => {
  if (event.target.closest("[data-live]")) turn % 2 ? stop() : start();
  else if (event.target.closest("[data-way]")) stop(); // a photo needs the camera, too
}, true);

// Whoever moves the slider wants to see what it does.
document.addEventListener("input", (event) => {
  if (stream && event.target.closest("#colours")) element.querySelector("[value=Colours]").checked = true;
});

// The camera is off when nobody looks: in another tab, or scrolled away.
document.addEventListener("visibilitychange", () => document.hidden && stop());
const sight = new IntersectionObserver((changes) => {
  if (!changes.at(-1).isIntersecting) stop("The camera went off: it was out of sight.");
});

window.unetLive = { stop, refusal };
