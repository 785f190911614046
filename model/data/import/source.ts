/**
 * The contract between importers and the store. An importer knows one foreign format: it names every field that a data set has, and
 * reads the episodes one after another, once. All else is the store's: which fields are actions, states, cameras and language
 * (mapping.ts), checks of numbers and times, the index in the cache, memory, and random access.
 */
import type { Folder } from '../../../engine/files/bytes.ts';
import type { Image } from '../dataset.ts';

/** The meaning of a field for a policy. 'time' is the second of each step, counted from any moment. */
export type FieldUse = 'action' | 'state' | 'language' | 'subtask' | 'time' | 'camera';

/** What a data set has under one name: a column, a feature, a table, an attribute, a file. */
export interface SourceField {
  /** As the format names it: `observation.images.top`, `steps/observation/state`, `obs/robot0_eef_pos`, `@ep_meta`. */
  readonly name: string;
  /** `other` is what no use is known for: maps, audio, bytes that are no picture. */
  readonly kind: 'numbers' | 'texts' | 'pictures' | 'depth' | 'other';
  /** The shape in one step: [width] of numbers, [height, width, channels] of pictures where it is known. */
  readonly shape?: readonly number[];
  /** The names of the numbers of a step. */
  readonly names?: readonly string[];
  /** What the format itself takes it for, unless the user says otherwise; null for nothing, and `reason` then says why. */
  readonly use: FieldUse | null;
  readonly reason?: string;
  /** Whether it only says how the set is laid out, so that nothing is lost without it: numbers of rows, lists of what the steps name. */
  readonly bookkeeping?: boolean;
  /** The name of a camera, where it is not that of the field without the prefixes that all cameras share. */
  readonly camera?: string;
}

/** A picture as it was stored: the bytes of an image file, or pixels. */
export type SourcePicture = Uint8Array<ArrayBuffer> | Image;

/**
 * The pictures of one field in one episode. What is said here is plain data: the store keeps it in its index, and asks for the pictures
 * themselves in later runs, with no episode read again.
 *
 *   ranges    each is a plain range of a file of the set, byte starts[i] to ends[i] - 1: nothing is copied
 *   files     each is a file of the set
 *   pick      the format has random access to one picture: `Source.picture` makes picture i
 *   unpack    the pictures of an episode can be had only together: `Source.unpack` makes them all in order, when the first of them is
 *             wanted, and the store keeps them in the cache
 */
export type SourcePictures = (
  | { readonly kind: 'ranges'; readonly file: string; readonly starts: Float64Array; readonly ends: Float64Array }
  | { readonly kind: 'files'; readonly paths: readonly string[] }
  | { readonly kind: 'pick' | 'unpack'; readonly place: PicturePlace; readonly count: number }
) & {
  /** The control step of each picture, growing, where not every step has one of its own; a step shows the newest. */
  readonly steps?: Uint32Array;
};

/** Where an importer finds the pictures of an episode again; JSON. */
export type PicturePlace = Readonly<Record<string, string | number | readonly number[]>>;

export interface SourceEpisode {
  readonly id: string;
  /** The number of its control steps with an action. */
  readonly length: number;
  /** File, and the place in it, for messages: `data/chunk-000/file-000.parquet, rows 0 to 99`. */
  readonly where: string;
  /** Numbers of a field, [length, width], of any finiteness: the store checks them. Float64 for times and large integers. Empty if the episode has none. */
  numbers(field: string): Promise<Float32Array | Float64Array>;
  /** Texts of a field as they are stored: one list for each step, or a single one for the whole episode. */
  texts(field: string): Promise<readonly (readonly string[])[]>;
  /** null if the episode has none of this field. */
  pictures(field: string): Promise<SourcePictures | null>;
}

export interface Source {
  /** One line about the format: `LeRobot data set, version 2.1 (widowx)`. */
  readonly kind: string;
  /** The name that the set gives itself. */
  readonly name?: string;
  /** Control steps per second: what the files state, and what is usual for this format where they state none. */
  readonly rate: { readonly stated?: number; readonly usual?: number };
  /** Every field, in the order of the set, whether it is of use or not. Files of the set that are not read are fields, too. */
  readonly fields: readonly SourceField[];
  /** The number of episodes, for progress, where it is known beforehand. */
  readonly count?: number;
  /** The episodes from number `first` on; each is read before the next is asked for. */
  episodes(first: number): AsyncIterable<SourceEpisode>;
  picture?(place: PicturePlace, index: number): Promise<SourcePicture>;
  unpack?(place: PicturePlace): AsyncIterable<SourcePicture>;
  close?(): Promise<void>;
}

export interface ImportOptions {
  /** The data set to open, where several lie in one place: a split of RLDS, an entry of index.json. */
  readonly name?: string;
  /** False if no pictures are wanted, so that their files need not be there. */
  readonly pictures?: boolean;
  /** The largest width and height, in pixels, of decoded frames of videos. */
  readonly frameSize: number;
  /** Receives a line about anything that is read otherwise than the files say, such as a frame that its video lacks. */
  readonly note?: (line: string) => void;
}

/** A folder whose entries can be listed; a single file is a folder with one entry. */
export interface ListedFolder extends Folder {
  /** Its path, where it lies on disk: for libraries that read files by path. */
  readonly path?: string;
  /** The names of files and folders in it, or in a folder of it, sorted; empty if there is no such folder. */
  list(path?: string): Promise<readonly string[]>;
}

/** One foreign format. */
export interface Importer {
  readonly format: string;
  /** Grows when it makes something else of the same files, so that indexes of earlier versions are made again. */
  readonly version: number;
  /** Whether the folder holds a data set of this format, by the names in it. */
  recognises(folder: ListedFolder): Promise<boolean>;
  /** Reads what describes the set; every file that it opens through `folder` counts for whether the set has changed. */
  open(folder: ListedFolder, options: ImportOptions): Promise<Source>;
}
