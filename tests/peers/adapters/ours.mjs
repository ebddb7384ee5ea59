// OURS_PKG: the folder of the built npm package (served at /ours/; the entry is package.json's exports["."]).
// OURS_MODEL: a package folder made from the same GGUF with `openweights convert` (served at /m/ours/).
import fs from 'node:fs'; import path from 'node:path';
const entry = dir => { const e = JSON.parse(fs.readFileSync(path.join(dir, 'package.json'), 'utf8')).exports['.']; return typeof e === 'string' ? e : e.browser ?? e.import ?? e.default; };
const v = (env, device, threads = 2, precision = undefined) => ({ page: '/h/page/ours.js', slow: device === 'webgpu', file: env.GGUF,
  opts: { pkg: env.OURS_PKG && fs.existsSync(env.OURS_PKG) ? '/ours/' + path.posix.normalize(entry(env.OURS_PKG)) : '', device, threads, precision,
    url: '/m/ours/' } });
export default {
  name: 'ours', model: 'the same GGUF as wllama',
  variants: env => ({ 'ours-cpu2': v(env, 'cpu'), 'ours-cpu2-fast': v(env, 'cpu', 2, 'fast'), 'ours-cpu1': v(env, 'cpu', 1), 'ours-webgpu': v(env, 'webgpu') }),
  roots: env => ({ ...(env.OURS_PKG ? { '/ours/': path.resolve(env.OURS_PKG) + '/' } : {}), ...(env.OURS_MODEL ? { '/m/ours/': path.resolve(env.OURS_MODEL) + '/' } : {}) }),
  check: env => !env.OURS_PKG ? 'OURS_PKG is not set' : !fs.existsSync(path.join(env.OURS_PKG, 'package.json')) ? `no package.json in OURS_PKG: ${env.OURS_PKG}` : !env.OURS_MODEL ? 'OURS_MODEL is not set' : null,
};
