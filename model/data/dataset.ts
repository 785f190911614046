/** An RGB image of 8 bits a channel: `pixels` is [height, width, 3], row-major. */
export interface Image {
  readonly width: number;
  readonly height: number;
  readonly pixels: Uint8Array;
}

/** One demonstration: what the robot measured, saw and was told, and what it did, control step by control step. */
export interface Episode {
  readonly id: string;
  /** Control steps that have an action. */
  readonly length: number;
  /** [length, actionDimension], raw units of the data set. */
  readonly actions: Float32Array;
  /** [length, stateDimension], raw units; null where the source has none. */
  readonly states: Float32Array | null;
  /** Wordings of the instruction, all true of this episode; empty where the source has none. */
  readonly instructions: readonly string[];
  /** Cameras with at least one image in this episode. */
  readonly cameras: readonly string[];
  /** The newest image of `camera` at or before `step`; null where there is none. */
  image(camera: string, step: number): Promise<Image | null>;
  /**
   * Only where the numbers are left on disk, because the data set's would not fit in memory: the same episode with its
   * actions and states, which cannot be had before. Only what was loaded last is kept.
   */
  load?(): Promise<Episode>;
}

/** Episodes of one embodiment at one control rate. */
export interface Dataset {
  readonly name: string;
  /** One line: what kind of files it was read from, and how much there is. */
  readonly description?: string;
  /** What the source calls each action dimension. */
  readonly actionNames?: readonly string[];
  /** Control steps a second. */
  readonly rate: number;
  readonly actionDimension: number;
  /** 0 where no episode has a state. */
  readonly stateDimension: number;
  /** Every camera that some episode has, in a fixed order. */
  readonly cameras: readonly string[];
  readonly episodes: readonly Episode[];
}
