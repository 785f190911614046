import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  actionIdsFromEnd,
  decodeWithLocations,
  encodeWithLocations,
  LOCATIONS,
  locationNames,
  parsePlaces,
  placesText,
  publicMappings,
  rangesAfterText,
  TextTokenizer,
} from '../../tokenizers/index.ts';

const text = TextTokenizer.default();
const ids = rangesAfterText(text.vocabularySize, { location: LOCATIONS, action: 2048 });

describe('location tokens', () => {
  it('name boxes and points, y first', () => {
    const places = [
      { coordinates: [0, 0.25, 0.5, 1], label: 'red cube' },
      { coordinates: [1.5, -1], label: 'bin' },
    ];
    const written = placesText(places);
    expect(written).toBe('<loc0000><loc0256><loc0512><loc1023> red cube ; <loc1023><loc0000> bin');
    expect(placesText(parsePlaces(written).places)).toBe(written);
    expect([locationNames().length, locationNames()[7]]).toEqual([1024, '<loc0007>']);
  });

  it('come back within half a bin', () => {
    const coordinate = fc.double({ min: 0, max: 1, noNaN: true });
    fc.assert(
      fc.property(fc.tuple(coordinate, coordinate, coordinate, coordinate), (coordinates) => {
        const [place] = parsePlaces(placesText([{ coordinates, label: 'it' }])).places;
        place.coordinates.forEach((value, i) => {
          expect(Math.abs(value - coordinates[i])).toBeLessThanOrEqual(0.5 / 1023 + 1e-12);
        });
      }),
      { seed: 12, numRuns: 200 },
    );
  });

  it('keep what a model wrote well and reject the rest', () => {
    const { places, rejected } = parsePlaces(
      '<loc0001><loc0002> a;<loc0001> b ; <loc9999><loc0000> c;d; <loc1023><loc0000>',
    );
    expect(places.map(({ label }) => label)).toEqual(['a', '']);
    expect(rejected).toEqual(['<loc0001> b', '<loc9999><loc0000> c', 'd']);
    fc.assert(
      fc.property(
        fc.string({ unit: fc.constantFrom('<loc0001>', '<loc2000>', '<loc', ';', ' ', 'x', '\n') }),
        (any) => {
          for (const { coordinates } of parsePlaces(any).places) {
            expect([2, 4]).toContain(coordinates.length);
            expect(coordinates.every((value) => value >= 0 && value <= 1)).toBe(true);
          }
        },
      ),
      { seed: 13, numRuns: 300 },
    );
  });

  it('have ids of their own inside text, apart from the actions', () => {
    const written = 'put it <loc0000><loc1023> there <loc5555>';
    const encoded = encodeWithLocations(written, text, ids.location);
    const first = text.vocabularySize;
    expect(Array.from(encoded).filter((id) => id >= first)).toEqual([first, first + 1023]);
    expect(decodeWithLocations(encoded, text, ids.location)).toBe(written);
    expect(Array.from({ length: 1024 }, (_, i) => ids.action.isAction(first + i)).includes(true)).toBe(false);
  });

  it("are taken over in openpi's mapping, which is there all the same", () => {
    const openpi = actionIdsFromEnd({ ...publicMappings.openpi, size: 1024 });
    const location = 257_152 - 128 - 1024; // <loc0000> of PaliGemma
    expect([openpi.isAction(location), openpi.isAction(location + 1023)]).toEqual([true, true]);
  });

  it('name bad input', () => {
    expect(() => placesText([{ coordinates: [1, 2, 3], label: 'x' }])).toThrow('"x" has 3 coordinates');
    expect(() => placesText([{ coordinates: [1, Number.NaN], label: 'x' }])).toThrow('a coordinate is NaN');
  });
});
