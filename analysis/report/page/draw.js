// Frames with what became of their patches: bit sets to patches, patches onto a canvas.

const HATCH = (() => {
  const tile = document.createElement("canvas");
  tile.width = tile.height = 12;
  const pen = tile.getContext("2d");
  pen.strokeStyle = "rgba(255, 255, 255, .85)";
  pen.lineWidth = 2;
  for (const shift of [-12, 0, 12]) {
    pen.moveTo(shift, 12);
    pen.lineTo(shift + 12, 0);
  }
  pen.stroke();
  return tile;
})();

// One byte a position, from base64 with position 0 in the lowest bit; null stays null.
function unpack(text, size) {
  if (text === null) return null;
  const bytes = Uint8Array.fromBase64 ? Uint8Array.fromBase64(text) : Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return Uint8Array.from({ length: size }, (_, n) => (bytes[n >> 3] >> (n & 7)) & 1);
}

function drawPatch(pen, state, x, y, width, height) {
  if (state === "dropped") {
    pen.fillStyle = "rgba(10, 13, 20, .86)";
    pen.fillRect(x, y, width, height);
  } else if (state === "merged") {
    pen.fillStyle = "rgba(20, 60, 140, .45)";
    pen.fillRect(x, y, width, height);
    pen.fillStyle = pen.createPattern(HATCH, "repeat");
    pen.fillRect(x, y, width, height);
  } else if (state === "evidence") {
    const line = Math.max(2, Math.min(width, height) / 9);
    for (const [colour, share] of [["#000000", 2], ["#ffd500", 1]]) {
      pen.strokeStyle = colour;
      pen.lineWidth = share * line;
      pen.strokeRect(x + line, y + line, width - 2 * line, height - 2 * line);
    }
  }
}

// `picture` is the contact sheet as an image, null where the video is gone: frames are grey then.
function drawFrames(canvas, question, sheet, picture, kept, merged) {
  const [frames, rows, columns] = question.grid;
  const scale = picture ? Math.max(1, Math.ceil(120 / sheet.size[0])) : 1;
  const [width, height] = picture ? sheet.size.map((side) => side * scale) : [120, 120];
  const gap = 4;
  const taken = question.frames;
  const across = sheet ? sheet.columns : Math.ceil(Math.sqrt(frames));
  canvas.width = across * (width + gap) - gap;
  canvas.height = Math.ceil(taken / across) * (height + gap) - gap;
  const pen = canvas.getContext("2d");
  pen.imageSmoothingEnabled = false;
  const evidence = new Set(question.evidence ?? []);
  for (let frame = 0; frame < taken; frame++) {
    const [column, line] = [frame % across, Math.floor(frame / across)];
    const [left, top] = [column * (width + gap), line * (height + gap)];
    if (picture) {
      const [w, h] = sheet.size;
      pen.drawImage(picture, column * w, line * h, w, h, left, top, width, height);
    } else {
      pen.fillStyle = "#9aa3ae";
      pen.fillRect(left, top, width, height);
    }
    if (kept === null) continue;
    const tokens = Math.min(frames - 1, Math.floor((frame * frames) / taken)); // several frames may share their tokens
    for (let n = 0; n < rows * columns; n++) {
      const at = tokens * rows * columns + n;
      // Whole pixels: patches must neither overlap nor leave seams.
      const [x, y] = [Math.round(((n % columns) * width) / columns), Math.round((Math.floor(n / columns) * height) / rows)];
      const right = Math.round((((n % columns) + 1) * width) / columns);
      const bottom = Math.round(((Math.floor(n / columns) + 1) * height) / rows);
      const box = [left + x, top + y, right - x, bottom - y];
      if (!kept[at]) drawPatch(pen, merged?.[at] ? "merged" : "dropped", ...box);
      if (evidence.has(at)) drawPatch(pen, "evidence", ...box);
    }
  }
}

for (const canvas of document.querySelectorAll("canvas[data-patch]")) {
  const pen = canvas.getContext("2d");
  const sky = pen.createLinearGradient(0, 0, 22, 22);
  sky.addColorStop(0, "#7fb2e5");
  sky.addColorStop(1, "#d9a06b");
  pen.fillStyle = sky;
  pen.fillRect(0, 0, 22, 22);
  drawPatch(pen, canvas.dataset.patch, 0, 0, 22, 22);
}
