// Browsers for tests, a fresh profile each time: Chromium with WebGPU in software, and Firefox.
import { existsSync } from "node:fs";
import { chromium } from "playwright-core";
import puppeteer from "puppeteer-core";

const firefoxes = ["/usr/bin/firefox-esr", "/usr/bin/firefox", "/Applications/Firefox.app/Contents/MacOS/firefox"];
const chromiums = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome", "/usr/bin/google-chrome-stable", "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"];
const gpu = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"];

function existing(variable, places) {
  const found = (process.env[variable] ? [process.env[variable]] : places).find((file) => existsSync(file));
  if (!found) throw new Error(`no ${variable.toLowerCase()}: run scripts/setup test, or set ${variable} to its path`);
  return found;
}

/** The browsers to test with: CHROMIUM and FIREFOX, or where systems put them. scripts/setup asks here too. */
export const executables = {
  chromium: () => existing("CHROMIUM", chromiums),
  firefox: () => existing("FIREFOX", firefoxes),
};

/** Launches Chromium. `webgpu: false` leaves the page without WebGPU, `flags` are more of the browser's. */
export function launch({ webgpu = true, flags = [] } = {}) {
  return chromium.launch({ executablePath: executables.chromium(), args: [...common(webgpu), ...flags] });
}

/** Chromium with its profile in `folder`, as one context. */
export function launchWithProfile(folder) {
  return chromium.launchPersistentContext(folder, { executablePath: executables.chromium(), args: common(true) });
}

const common = (webgpu) => ["--no-sandbox", "--disable-background-networking", ...(webgpu ? gpu : ["--disable-features=WebGPU,WebGPUService"])];

/** Launches Firefox, driven over WebDriver BiDi. With `webgpu`, that is emulated on llvmpipe. */
export function launchFirefox({ webgpu = false } = {}) {
  const extraPrefsFirefox = { "dom.webgpu.enabled": webgpu, "gfx.webgpu.ignore-blocklist": webgpu };
  return puppeteer.launch({ browser: "firefox", executablePath: executables.firefox(), extraPrefsFirefox, protocolTimeout: 600_000 });
}
