// Draws static/icon*.png from the SVG icons, for systems that install pages and take no SVG: node web/icons.mjs, after these changed.
// Their shapes have one colour, so 16 shades of their edges are enough: half a byte a pixel.
import { readFileSync, writeFileSync } from "node:fs";
import { crc32, deflateSync } from "node:zlib";
import { launch } from "../tests/web/browser.mjs";

const place = (name) => `${import.meta.dirname}/static/${name}`;

/** The pixels of an SVG, as RGBA. */
const pixels = (page, svg, size) => page.evaluate(async ([svg, size]) => {
  const image = new Image();
  image.src = `data:image/svg+xml,${encodeURIComponent(svg)}`;
  await image.decode();
  const context = new OffscreenCanvas(size, size).getContext("2d");
  context.drawImage(image, 0, 0, size, size);
  return [...context.getImageData(0, 0, size, size).data];
}, [svg, size]);

function chunk(type, data) {
  const body = Buffer.concat([Buffer.from(type), data]);
  const [length, check] = [Buffer.alloc(4), Buffer.alloc(4)];
  length.writeUInt32BE(data.length);
  check.writeUInt32BE(crc32(body));
  return Buffer.concat([length, body, check]);
}

/** A PNG of 16 colours between `from` and `to`, by `shade`: a number from 0 to 15 for each pixel. */
function png(size, from, to, shade) {
  const colours = Array.from({ length: 16 }, (_, i) => from.map((value, c) => Math.round(value + ((to[c] - value) * i) / 15)));
  const row = (y) => [0, ...Array.from({ length: size / 2 }, (_, x) => (shade(y * size + 2 * x) << 4) | shade(y * size + 2 * x + 1))];
  const header = Buffer.alloc(13);
  header.writeUInt32BE(size, 0);
  header.writeUInt32BE(size, 4);
  header.set([4, 3, 0, 0, 0], 8); // bits, palette, and the only way to pack, filter and interlace
  return Buffer.concat([
    Buffer.from("\x89PNG\r\n\x1a\n", "latin1"),
    chunk("IHDR", header),
    chunk("PLTE", Buffer.from(colours.flatMap((colour) => colour.slice(0, 3)))),
    chunk("tRNS", Buffer.from(colours.map((colour) => colour[3]))),
    chunk("IDAT", deflateSync(Buffer.from(Array.from({ length: size }, (_, y) => row(y)).flat()), { level: 9 })),
    chunk("IEND", Buffer.alloc(0)),
  ]);
}

const browser = await launch({ webgpu: false });
const page = await browser.newPage();
for (const [name, size] of [["icon", 192], ["icon", 512], ["icon-maskable", 512]]) {
  const svg = readFileSync(place(`${name}.svg`), "utf8").replace("<svg ", `<svg width="${size}" height="${size}" `);
  const data = await pixels(page, svg, size);
  const at = (i) => data.slice(4 * i, 4 * i + 4);
  const centre = at((size / 2) * size + size / 2); // the dot in the middle
  const corner = at(0);
  // Where there is no ground its colour is the shape's, and only how opaque it is differs.
  const ground = corner[3] ? corner : [...centre.slice(0, 3), 0];
  const channel = [0, 1, 2, 3].reduce((best, c) => (Math.abs(centre[c] - ground[c]) > Math.abs(centre[best] - ground[best]) ? c : best));
  const shade = (i) => Math.round((15 * (data[4 * i + channel] - ground[channel])) / (centre[channel] - ground[channel]));
  writeFileSync(place(`${name}-${size}.png`), png(size, ground, centre, (i) => Math.min(15, Math.max(0, shade(i)))));
}
await browser.close();
