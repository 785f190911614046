/** An RGB image with 8 bits a channel; `pixels` is [height, width, 3], row-major. */
export interface Image {
  readonly width: number;
  readonly height: number;
  readonly pixels: Uint8Array;
}

/** One demonstration: the robot's states, images, instruction and actions, control step by control step. */
export interface Episode {
  readonly id: string;
  /** The name of the episode's robot in a mixture of data sets. */
  readonly robot?: string;
  /** The number of control steps that have an action. */
  readonly length: number;
  /** [length, actionDimension], in raw units of the data set. */
  readonly actions: Float32Array;
  /** [length, stateDimension], in raw units; null if the source has none. */
  readonly states: Float32Array | null;
  /** Paraphrases of the instruction, all true of this episode; empty if the source has none. */
  readonly instructions: readonly string[];
  /** Present only if the instruction changes: the paraphrases at control step `step`, known before loading. */
  instructionsAt?(step: number): readonly string[];
  /** The cameras with at least one image in this episode. */
  readonly cameras: readonly string[];
  /** Returns the newest image of `camera` at or before `step`; null if there is none. */
  image(camera: string, step: number): Promise<Image | null>;
  /** Returns the unchanged JPEG or PNG file of that image; null if the source does not keep it as a file. */
  imageFile?(camera: string, step: number): Promise<Uint8Array<ArrayBuffer> | null>;
  /** Returns the subtask at control step `step`, if the source describes it; known before the episode is loaded. */
  subtask?(step: number): string | null;
  /**
   * Returns the places of the things that are acted on at control step `step`, if the source has them, as shares [down, across] of the
   * first camera's picture; known before the episode is loaded.
   */
  places?(step: number): readonly (readonly [number, number])[];
  /**
   * Present only if the numbers are left on disk, because those of the data set do not fit in memory: returns the same
   * episode with its actions and states, which are not accessible before. Only recently loaded numbers are kept.
   */
  load?(): Promise<Episode>;
}

/** The meaning of one dimension of a robot's actions or states, and its position in the vector that robots share. */
export interface Slot {
  readonly name: string;
  /** The position in the padded vector that robots share. */
  readonly slot: number;
  readonly kind: 'joint' | 'joint velocity' | 'position' | 'rotation' | 'gripper' | 'base' | 'other';
  /** Whether the action is trained as the difference to the same state at the chunk's start; never for grippers. */
  readonly relative: boolean;
}

/** The dimensions of one robot, in the order of its data. */
export interface SlotMap {
  readonly robot: string;
  /** The length of the padded vector. */
  readonly width: number;
  readonly actions: readonly Slot[];
  readonly state: readonly Slot[];
}

/** Episodes at one control rate, from one robot or from a mixture. */
export interface Dataset {
  readonly name: string;
  /** One line that says what kind of files were read, and how much they hold. */
  readonly description?: string;
  /** Every field that the source has, with what it has become. */
  readonly fields?: readonly MappedField[];
  /** Lines about what was noticed: fields that were left out, and irregular times. */
  readonly notes?: readonly string[];
  /** The steps that last another time than the rate says, by the times of the source. */
  readonly irregularSteps?: number;
  /** The names of the action dimensions in the source. */
  readonly actionNames?: readonly string[];
  /** Control steps per second. */
  readonly rate: number;
  readonly actionDimension: number;
  /** 0 if no episode has a state. */
  readonly stateDimension: number;
  /** Every camera of any episode, in a fixed order. */
  readonly cameras: readonly string[];
  readonly episodes: readonly Episode[];
  /** The robots of a mixture by name: the dimensions above are those of the slots; an episode has its robot's own. */
  readonly robots?: Readonly<Record<string, SlotMap>>;
  /** The sampling weights of a mixture's robots; n^0.43 for n examples by default. */
  readonly weights?: Readonly<Record<string, number>>;
}

/** A field of the source, and what it has become. */
export interface MappedField {
  readonly name: string;
  readonly kind: 'numbers' | 'texts' | 'pictures' | 'depth' | 'other';
  /** The shape in one step, where it is known. */
  readonly shape?: readonly number[];
  /** What it is for a policy, such as "actions 0 to 6" or "camera top"; null for nothing. */
  readonly use: string | null;
  /** Why it is nothing, or only in a part of the episodes. */
  readonly reason?: string;
}

/** The fields to take for each use, in place of what a format takes them for. An empty list, or null, is nothing. */
export interface FieldMap {
  /** Fields of numbers, whose columns are concatenated in this order. */
  readonly action?: readonly string[];
  readonly state?: readonly string[];
  /** Fields of pictures by the name of their camera. */
  readonly cameras?: Readonly<Record<string, string>>;
  /** Fields of texts, all of which are instructions. */
  readonly language?: readonly string[];
  readonly subtask?: string | null;
  /** A field with the second of each step. */
  readonly time?: string | null;
}

export interface DatasetOptions {
  /** The data set of a folder with several to open if none is named. */
  readonly usual?: string;
  /** The cameras to read; all by default, none for an empty list. */
  readonly cameras?: readonly string[];
  /** The largest width and height, in pixels, of decoded frames of cameras that exist only as video; 224 by default. */
  readonly frameSize?: number;
  /** The folder for indexes and unpacked pictures (node); by default one in the user's cache folder. */
  readonly cacheFolder?: string;
  /** Fields to take as actions, states, cameras, instructions, subtasks and times, in place of those that are known. */
  readonly map?: FieldMap;
  /** Is told the episodes that were read when a set is opened for the first time. */
  onProgress?(done: number, total: number | undefined): void;
  /** Is told, once for each, the lines about pictures that are noticed only when these are read. */
  onNote?(line: string): void;
  /** Control steps per second, for files that do not state it (RLDS, npz, HDF5); refused for files that do. */
  readonly rate?: number;
  /** The order of the colours in the data set's images: 'bgr' for those that were written with red and blue swapped. */
  readonly channels?: 'rgb' | 'bgr';
  /** The bytes of actions and states held in memory; episodes of larger data sets are loaded one by one. */
  readonly memory?: number;
}
