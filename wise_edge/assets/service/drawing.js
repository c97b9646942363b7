// Draws answers as `wise_edge.drawing.plain` does: a contour and a light fill, in colors that the query does not name.
const PAINTS = [/* paints */];  // color as [red, green, blue], and the words that name it
const SHADOW = [8, 12, 20], TINTED = 10, FULL = 64;
const areas = new WeakMap();  // of objects of answers: their decoded masks
const css = (color) => `rgb(${color.join(" ")})`;

function decodeRuns({size: [height, width], counts}) {  // COCO's compressed run lengths, down the columns
  const mask = new Uint8Array(width * height), runs = [];
  let left = width, top = height, right = 0, bottom = 0;
  for (let at = 0; at < counts.length;) {
    let value = 0, shift = 0, code;
    do {
      code = counts.charCodeAt(at++) - 48;
      value |= (code & 31) << shift;
      shift += 5;
    } while (code & 32);
    if (code & 16) value |= -1 << shift;
    runs.push(runs.length > 2 ? value + runs[runs.length - 2] : value);
  }
  for (let run = 0, place = 0; run < runs.length; place += runs[run++]) if (run % 2) {
    for (let end = place + runs[run], at = place; at < end; at++) {
      const x = Math.floor(at / height), y = at % height;
      mask[y * width + x] = 1;
      [left, top] = [Math.min(left, x), Math.min(top, y)];
      [right, bottom] = [Math.max(right, x + 1), Math.max(bottom, y + 1)];
    }
  }
  return {mask, width, height, box: right ? [left, top, right, bottom] : null};
}

function freeColors(query) {
  const words = new Set((query.toLowerCase().match(/[a-z]+/g) || []).map((word) => word.replace(/ish$/, "")));
  const free = PAINTS.filter(([, names]) => !names.some((name) => words.has(name)));
  return (free.length ? free : PAINTS).map(([color]) => color);
}

const strokeOf = (canvas) => Math.max(2, Math.round(Math.max(canvas.width, canvas.height) / 480));

class Area {  // the part of the picture where a mask and its contour lie
  constructor(draw, {mask, width, height, box}, stroke) {
    const margin = stroke + 3, [left, top, right, bottom] = box;
    Object.assign(this, {draw, stroke, x: Math.max(0, left - margin), y: Math.max(0, top - margin)});
    this.width = Math.min(width, right + margin) - this.x;
    this.height = Math.min(height, bottom + margin) - this.y;
    this.mask = new Uint8Array(this.width * this.height);
    for (let row = 0; row < this.height; row++) {
      const from = (this.y + row) * width + this.x;
      this.mask.set(mask.subarray(from, from + this.width), row * this.width);
    }
  }

  change(work) {
    const pixels = this.draw.getImageData(this.x, this.y, this.width, this.height);
    work(pixels.data);
    this.draw.putImageData(pixels, this.x, this.y);
  }

  fill(color) {
    this.change((data) => {
      for (let at = 0; at < this.mask.length; at++) if (this.mask[at]) for (let channel = 0; channel < 3; channel++) {
        const value = data[4 * at + channel];
        data[4 * at + channel] = value - Math.floor(value / TINTED) + Math.floor(color[channel] / TINTED);
      }
    });
  }

  line(color) {
    const inner = this.grow(this.mask, 1), outer = this.grow(inner, this.stroke);
    const between = (low, high) => high.map((on, at) => on & ~low[at]);
    this.change((data) => {
      this.blend(data, this.soften(between(this.mask, this.grow(outer, 1))), SHADOW);
      this.blend(data, this.soften(between(inner, outer)), color);
    });
  }

  grow(mask, reach) {
    const {width} = this;
    let grown = mask;
    for (let step = 0; step < reach; step++) {
      let before = grown;
      grown = grown.slice();
      for (let at = width; at < grown.length; at++) {
        grown[at] |= before[at - width];
        grown[at - width] |= before[at];
      }
      if (step % 2) before = grown.slice();
      for (let at = 1; at < grown.length; at++) if (at % width) {
        grown[at] |= before[at - 1];
        grown[at - 1] |= before[at];
      }
    }
    return grown;
  }

  soften(band) {
    const {width} = this;
    let share = band;
    for (const step of [width, 1]) {
      const weighted = share.map((value) => 6 * value);
      for (let at = step; at < share.length; at++) if (step > 1 || at % width) {
        weighted[at] += share[at - step];
        weighted[at - step] += share[at];
      }
      share = weighted;
    }
    return share;
  }

  blend(data, share, color) {
    for (let at = 0; at < share.length; at++) if (share[at]) for (let channel = 0; channel < 3; channel++) {
      const mixed = data[4 * at + channel] * (FULL - share[at]) + color[channel] * share[at];
      data[4 * at + channel] = Math.floor(mixed / FULL);
    }
  }
}

function paint(picture, canvas, result, marks) {
  canvas.width = picture.width;
  canvas.height = picture.height;
  const draw = canvas.getContext("2d", {willReadFrequently: true}), stroke = strokeOf(canvas);
  draw.drawImage(picture, 0, 0);
  if (!result || !result.objects.length) return;
  const several = result.objects.length > 1, colors = freeColors(result.query);
  const colorOf = (item) => colors[(item.number - 1) % colors.length];
  for (const item of result.objects) if (!areas.has(item)) areas.set(item, decodeRuns(item.mask));
  const drawn = result.objects.filter((item) => areas.get(item).box)
    .map((item) => [new Area(draw, areas.get(item), stroke), colorOf(item)]);
  for (const [area, color] of drawn) area.fill(color);
  for (const [area, color] of drawn) area.line(color);  // once more, since an object may cover the line of another
  if (marks) for (const item of result.objects) mark(draw, item, css(colorOf(item)), stroke);
  if (several) for (const item of result.objects) badge(draw, item, css(colorOf(item)), stroke, marks);
}

function mark(draw, item, color, stroke) {  // the policy's box and points
  const [left, top, right, bottom] = item.box;
  for (const [style, width, reach] of [[css(SHADOW), stroke + 2, stroke / 2], [color, stroke, stroke / 2]]) {
    draw.strokeStyle = style;
    draw.lineWidth = width;
    draw.strokeRect(left - reach, top - reach, right - left + 2 * reach, bottom - top + 2 * reach);
  }
  for (const [x, y] of item.points) for (const [style, reach] of [[css(SHADOW), 3 * stroke], ["#fff", 3 * stroke - 1],
    [color, 2 * stroke]]) {
    draw.beginPath();
    draw.arc(x + .5, y + .5, reach, 0, 2 * Math.PI);
    draw.fillStyle = style;
    draw.fill();
  }
}

function badge(draw, item, color, stroke, marks) {
  const size = Math.max(10, 6 * stroke), words = nameOf(item), box = marks ? item.box : areas.get(item).box || item.box;
  draw.font = `600 ${size}px system-ui, sans-serif`;
  draw.textBaseline = "middle";
  const width = Math.min(draw.measureText(words).width + size, draw.canvas.width), height = size * 1.4;
  const left = Math.max(0, Math.min(box[0] - stroke, draw.canvas.width - width));
  draw.fillStyle = color;
  draw.fillRect(left, Math.max(0, box[1] - stroke - height), width, height);
  draw.fillStyle = css(SHADOW);
  draw.fillText(words, left + size / 2, Math.max(0, box[1] - stroke - height) + height / 2, width - size);
}

const nameOf = (item) => item.label ? `${item.number} ${item.label}` : `${item.number}`;
