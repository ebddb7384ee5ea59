/** Numbers for people. */

export function bytes(count: number): string {
  if (count < 1e6) return `${(count / 1e3).toFixed(0)} kB`;
  if (count < 1e9) return `${(count / 1e6).toFixed(count < 1e7 ? 1 : 0)} MB`;
  return `${(count / 1e9).toFixed(2)} GB`;
}

export function count(number: number): string {
  if (number < 1e6) return number.toLocaleString("en");
  return number < 1e9 ? `${(number / 1e6).toFixed(0)} million` : `${(number / 1e9).toFixed(1)} billion`;
}

export function duration(seconds: number): string {
  if (seconds < 60) return `${Math.ceil(seconds)} s`;
  return `${Math.floor(seconds / 60)} min ${Math.ceil(seconds % 60)} s`;
}
