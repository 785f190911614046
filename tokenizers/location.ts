import { roundHalfToEven } from './fast-alphabet.ts';
import type { TextTokenizer } from './text.ts';
import type { ActionIds } from './vocabulary.ts';

/**
 * Image locations as tokens `<loc0000>` .. `<loc1023>` (PaliGemma, big_vision): bin = round(1023 * coordinate),
 * clipped, with coordinates in [0, 1], y before x. A box has four of them (top, left, bottom, right) and a label, a
 * point has two; several locations are joined by ` ; `.
 */
export const LOCATIONS = 1024;

/** A point [y, x], or a box [top, left, bottom, right], with coordinates in [0, 1]. */
export interface Place {
  readonly coordinates: readonly number[];
  readonly label: string;
}

/** Names of all location tokens. Their ids have a range of their own (`rangesAfterText`) or are text ids (`idsOfPieces`). */
export function locationNames(): string[] {
  return Array.from({ length: LOCATIONS }, (_, bin) => `<loc${String(bin).padStart(4, '0')}>`);
}

/** The location nearest to a coordinate, among those of which the number is a multiple of `step`. */
export function nearestLocation(coordinate: number, step: number): number {
  const last = Math.floor((LOCATIONS - 1) / step);
  return Math.max(0, Math.min(last, Math.round((coordinate * (LOCATIONS - 1)) / step))) * step;
}

export function placesText(places: readonly Place[]): string {
  return places
    .map(({ coordinates, label }) => {
      if (coordinates.length !== 2 && coordinates.length !== 4)
        throw new Error(
          `placesText: ${JSON.stringify(label)} has ${coordinates.length} coordinates; a point has 2, a box 4`,
        );
      return `${coordinates.map(locationText).join('')} ${label}`.trim();
    })
    .join(' ; ');
}

function locationText(coordinate: number): string {
  if (!Number.isFinite(coordinate)) throw new Error(`placesText: a coordinate is ${coordinate}; it must be finite`);
  const bin = Math.min(Math.max(roundHalfToEven(coordinate * (LOCATIONS - 1)), 0), LOCATIONS - 1);
  return `<loc${String(bin).padStart(4, '0')}>`;
}

/** The first token in a text that looks like a location and is none, such as `<loc1024>`, which lies outside of the image. */
export function wrongLocation(text: string): string | undefined {
  const all = text.matchAll(/<loc(-?[\d.]*)>/g);
  return Array.from(all).find(([, bin]) => !/^\d{4}$/.test(bin) || Number(bin) >= LOCATIONS)?.[0];
}

/** Points and boxes of a generated text; `rejected` are the parts between `;` that are neither. */
export function parsePlaces(text: string): { places: Place[]; rejected: string[] } {
  const places: Place[] = [];
  const rejected: string[] = [];
  for (const part of text.split(';').map((piece) => piece.trim())) {
    const match = /^((?:<loc\d{4}>){4}|(?:<loc\d{4}>){2})(?!<loc)(.*)$/s.exec(part);
    const bins = Array.from(match?.[1].matchAll(/\d{4}/g) ?? [], ([bin]) => Number(bin));
    if (!match || bins.some((bin) => bin >= LOCATIONS)) rejected.push(part);
    else places.push({ coordinates: bins.map((bin) => bin / (LOCATIONS - 1)), label: match[2].trim() });
  }
  return { places, rejected };
}

/** Text with location tokens -> ids: `locations` maps the location tokens, the rest is ordinary text. */
export function encodeWithLocations(text: string, tokenizer: TextTokenizer, locations: ActionIds): Int32Array {
  const ids: number[] = [];
  let end = 0;
  for (const match of text.matchAll(/<loc(\d{4})>/g)) {
    if (Number(match[1]) >= LOCATIONS) continue;
    ids.push(...tokenizer.encode(text.slice(end, match.index)), ...locations.toVocabulary([Number(match[1])]));
    end = match.index + match[0].length;
  }
  return Int32Array.from([...ids, ...tokenizer.encode(text.slice(end))]);
}

export function decodeWithLocations(ids: ArrayLike<number>, tokenizer: TextTokenizer, locations: ActionIds): string {
  let text = '';
  let plain: number[] = [];
  for (const id of Array.from(ids)) {
    if (!locations.isAction(id)) {
      plain.push(id);
      continue;
    }
    text += tokenizer.decode(plain) + locationText(locations.toActions([id])[0] / (LOCATIONS - 1));
    plain = [];
  }
  return text + tokenizer.decode(plain);
}
