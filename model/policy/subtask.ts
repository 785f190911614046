/** Subtasks: a policy says places in its picture, words, or both before it acts (point, then act; pi0.5, arXiv 2504.16054). */
import { type ActionIds, LOCATIONS, nearestLocation, type TextTokenizer } from '../../tokenizers/index.ts';
import type { VisionSettings } from '../architecture/configuration.ts';
import type { Image } from '../data/dataset.ts';
import { shareBeforePadding, shareWithPadding } from '../data/index.ts';

/** [down, across] as shares of a picture's sides. */
export type PicturePlace = readonly [number, number];

/** A subtask as it is said. */
export interface Said {
  readonly words: string;
  /** In the picture of the first camera. */
  readonly places: readonly PicturePlace[];
}

type Vision = Pick<VisionSettings, 'imageHeight' | 'imageWidth'>;

const moved =
  (move: typeof shareWithPadding) =>
  ({ words, places }: Said, image: Image, { imageWidth, imageHeight }: Vision): Said => {
    const size = { width: imageWidth, height: imageHeight };
    return {
      words,
      places: places.map(([down, across]) => [move(down, 'height', image, size), move(across, 'width', image, size)]),
    };
  };

/** A subtask about a picture, with its places in the picture that the model sees of it: they move where it is padded. */
export const inModelPicture = moved(shareWithPadding);
/** The inverse of `inModelPicture`. */
export const inOriginalPicture = moved(shareBeforePadding);

export interface SubtaskSettings {
  readonly words: boolean;
  /** The most places that are said; 0 for words alone. */
  readonly places: number;
  /** Places are said as location tokens of which the number is a multiple of this. */
  readonly locationStep: number;
}

/** Half a pixel of the model's picture: so few location tokens are seen often in training. */
export const locationStepFor = (pixels: number): number => Math.max(1, Math.floor(LOCATIONS / (2 * pixels)));

/** Frequencies of the features of a number, in quarters of a turn from -1 to 1. */
const FREQUENCIES = [1, 2, 4];
const FEATURES = 1 + 2 * FREQUENCIES.length;

/** v from -1 to 1, with sines and cosines of it. */
export function featuresOf(v: number): number[] {
  const waves = FREQUENCIES.map((own) => (Math.PI * own * v) / 2);
  return [v, ...waves.map(Math.sin), ...waves.map(Math.cos)];
}

/** The number of features in the block by which an action expert gets places and the state; 0 for a policy that says no places. */
export const numbersDimension = ({ places }: Pick<SubtaskSettings, 'places'>, stateDimension: number): number =>
  places === 0 ? 0 : (2 * places + stateDimension) * FEATURES;

/** The tokens of subtasks in the joint vocabulary: location tokens in pairs, then text. */
export class SubtaskTokens {
  /** Text that comes before action tokens; its first token ends the subtask. */
  readonly introduction: readonly number[];
  private readonly allLocations: readonly number[];
  private readonly allWords: readonly number[];
  private readonly ends: readonly number[];

  constructor(
    readonly settings: SubtaskSettings,
    private readonly text: TextTokenizer,
    private readonly locations: ActionIds | undefined,
  ) {
    this.introduction = Array.from(text.encode(';\nAction: '));
    const bins = Int32Array.from({ length: settings.places > 0 ? LOCATIONS : 0 }, (_, bin) => bin);
    this.allLocations = Array.from(locations?.toVocabulary(bins) ?? []);
    this.allWords = Array.from({ length: settings.words ? text.vocabularySize : 0 }, (_, id) => id);
    this.ends = [this.introduction[0], text.special.eos];
  }

  encode({ words, places }: Said): number[] {
    const { settings, text } = this;
    const said = places.slice(0, settings.places).flatMap((place) => place.map((share) => this.locationOf(share)));
    return [...said, ...(settings.words ? text.encode(words) : [])];
  }

  decode(ids: readonly number[]): Said {
    const count = ids.findIndex((id) => !this.isLocation(id));
    const shares = ids
      .slice(0, count < 0 ? ids.length : count)
      .map((id) => this.locations!.toActions([id])[0] / (LOCATIONS - 1));
    const places = Array.from(
      { length: Math.floor(shares.length / 2) },
      (_, i): PicturePlace => [shares[2 * i], shares[2 * i + 1]],
    );
    return { words: this.text.decode(ids.filter((id) => !this.isLocation(id))), places };
  }

  /** The ids that may follow, an end among them; null after the last place where nothing else is said. */
  allowed(written: readonly number[]): readonly number[] | null {
    const { settings, allLocations, allWords, ends } = this;
    const said = written.filter((id) => this.isLocation(id)).length;
    const locations = said === written.length && said < 2 * settings.places ? allLocations : [];
    if (said % 2 === 1) return locations;
    const isComplete = said === 2 * settings.places && !settings.words;
    return isComplete ? null : [...locations, ...allWords, ...ends];
  }

  /** All ids that may be said, ends among them. */
  get possible(): readonly number[] {
    return [...this.allLocations, ...this.allWords, ...this.ends];
  }

  isEnd(id: number): boolean {
    return this.ends.includes(id);
  }

  /** The features of the places; zeros for those that are not said. */
  numbers({ places }: Said): number[] {
    const features = places.flat().flatMap((share) => featuresOf(2 * share - 1));
    return Array.from({ length: 2 * this.settings.places * FEATURES }, (_, i) => features[i] ?? 0);
  }

  private locationOf(share: number): number {
    return this.locations!.toVocabulary([nearestLocation(share, this.settings.locationStep)])[0];
  }

  private isLocation(id: number): boolean {
    return this.locations?.isAction(id) ?? false;
  }
}
