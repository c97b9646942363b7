// Repeats the query on the newest frame of a camera or a video, one at a time.
const LIVE_LONGEST = 1024, RATED = 20;
let live = null;  // {stop, video, camera, name, query}; camera is null for a file

async function startCamera() {
  if (live && live.camera) return endLive("Stopped.");
  if (!navigator.mediaDevices) return say(NEEDS_HTTPS, true);
  if (shooting) return;
  endLive();
  shooting = true;
  try {
    const camera = await navigator.mediaDevices.getUserMedia(CAMERA);
    $("video").srcObject = camera;
    await startLive("live camera", camera);
  } catch (error) {
    endLive();
    say(`The camera is not available: ${error.message || error.name}.`, true);
  } finally {
    shooting = false;
  }
}

async function startVideo(file) {
  endLive();
  $("video").src = URL.createObjectURL(file);
  try {
    await startLive(file.name, null);
  } catch {
    endLive();
    say(`${file.name} is not a video that this browser can play.`, true);
  }
}

async function startLive(name, camera) {
  const video = $("video"), own = live = {stop: new AbortController(), video, camera, name, query: ""};
  takes++;  // a picture that is still being read is no longer wanted
  if (asking) asking.abort();
  end(asking);
  image = null;
  $("examples").hidden = true;
  $("stop").hidden = false;
  $("results").replaceChildren();
  video.controls = !camera;
  video.hidden = Boolean(camera);  // its frames are shown with their masks
  await video.play();
  if (live !== own) return;
  entitle(name, `${video.videoWidth} × ${video.videoHeight}`);
  own.query = $("query").value.trim();
  if (!own.query) $("query").focus();
  follow(own);
}

function endLive(words) {
  if (!live) return;
  const {stop, video, camera} = live;
  live = null;
  stop.abort();
  video.pause();
  video.hidden = $("stop").hidden = true;
  if (camera) camera.getTracks().forEach((track) => track.stop());
  else URL.revokeObjectURL(video.src);
  video.srcObject = null;
  video.removeAttribute("src");
  if (words) say(words);
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

async function follow(own) {
  const {stop: {signal}, video, camera} = own, ended = [];
  let made = null, asked = -1, told = "";
  const tell = (words) => words === told || say(told = words);  // a screen reader reads what changes
  while (live === own) {
    const {query} = own, variant = $("variant").value.split(",")[0];
    if (!query || (!camera && video.currentTime === asked)) {  // the video is paused
      if (!query) tell("Enter what to find.");
      else if (video.ended) return endLive(`${own.name} has ended.`);
      await pause(20);
      continue;
    }
    asked = video.currentTime;
    const picture = scaled(video, video.videoWidth, video.videoHeight, LIVE_LONGEST);
    try {
      const blob = await new Promise((done) => picture.toBlob(done, "image/jpeg", 0.9)), body = new FormData();
      for (const [name, value] of Object.entries({query, variant, image: blob})) body.append(name, value);
      const result = await (await send("v1/segment", {method: "POST", body, signal})).json();
      if (live !== own) return;
      if (!made) (made = card(variant, "…")).rationale.setAttribute("aria-live", "off");
      image = picture;  // for downloads, and for queries after the end
      show(made, picture, query, variant, result);
      describe(made, result, result.latency_ms.total);
      ended.push(performance.now());
      if (ended.length > RATED) ended.shift();
      const rate = 1000 * (ended.length - 1) / (ended.at(-1) - ended[0]);
      made.small.textContent = `${ended.length > 1 ? rate.toFixed(1) : "–"} frames/s, ${ms(result.latency_ms.total)} a frame`;
      tell(`“${query}”: ${SAID[result.status].replace("done: ", "").replace("done", "found")}`);
    } catch (error) {
      if (signal.aborted) return;
      if (error.status === 429) {
        tell("The service is busy; the next frame is tried.");
        await pause(500);
        continue;
      }
      endLive();
      return say(error.message, true);
    }
  }
}
