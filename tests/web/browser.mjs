// Chromium for tests: WebGPU in software, a fresh profile each time.
import { existsSync } from "node:fs";
import { chromium } from "playwright-core";

const places = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome", "/usr/bin/google-chrome-stable", "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"];
const gpu = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"];

/** The browser to test with: CHROMIUM, or where systems put it. scripts/setup asks here too. */
export function executable() {
  const found = (process.env.CHROMIUM ? [process.env.CHROMIUM] : places).find((file) => existsSync(file));
  if (!found) throw new Error("no Chromium: run scripts/setup test, or set CHROMIUM to its path");
  return found;
}

/** Launches it. `webgpu: false` leaves the page without WebGPU. */
export function launch({ webgpu = true } = {}) {
  const args = ["--no-sandbox", "--disable-background-networking", ...(webgpu ? gpu : ["--disable-features=WebGPU,WebGPUService"])];
  return chromium.launch({ executablePath: executable(), args });
}
