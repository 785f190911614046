/** An RGB image of 8 bits a channel: `pixels` is [height, width, 3], row-major. */
export interface Image {
  readonly width: number;
  readonly height: number;
  readonly pixels: Uint8Array;
}

/** One demonstration: what the robot measured, saw and was told, and what it did, control step by control step. */
export interface Episode {
  readonly id: string;
  /** Of a mixture of robots, whose it is. */
  readonly robot?: string;
  /** Control steps that have an action. */
  readonly length: number;
  /** [length, actionDimension], raw units of the data set. */
  readonly actions: Float32Array;
  /** [length, stateDimension], raw units; null where the source has none. */
  readonly states: Float32Array | null;
  /** Wordings of the instruction, all true of this episode; empty where the source has none. */
  readonly instructions: readonly string[];
  /** Only where it changes during the episode: which of them are true at control step `step`; known before the episode is loaded. */
  instructionsAt?(step: number): readonly string[];
  /** Cameras with at least one image in this episode. */
  readonly cameras: readonly string[];
  /** The newest image of `camera` at or before `step`; null where there is none. */
  image(camera: string, step: number): Promise<Image | null>;
  /** The file (JPEG or PNG) of that image, byte for byte; null where the source does not keep it as a file. */
  imageFile?(camera: string, step: number): Promise<Uint8Array<ArrayBuffer> | null>;
  /** What is being done at control step `step`, in words, where the source says; known before the episode is loaded. */
  subtask?(step: number): string | null;
  /**
   * Only where the numbers are left on disk, because the data set's would not fit in memory: the same episode with its
   * actions and states, which cannot be had before. Only what was loaded last is kept.
   */
  load?(): Promise<Episode>;
}

/** What one dimension of a robot's actions or states is, and where it stands among those of all robots. */
export interface Slot {
  readonly name: string;
  /** Its place in the padded vector that robots share. */
  readonly slot: number;
  readonly kind: 'joint' | 'joint velocity' | 'position' | 'rotation' | 'gripper' | 'base' | 'other';
  /** Trained as the difference to the state of the same number at the chunk's start. Not for grippers. */
  readonly relative: boolean;
  readonly gripper: boolean;
}

/** The dimensions of one robot, in the order of its data. */
export interface SlotMap {
  readonly robot: string;
  /** Length of the padded vector. */
  readonly width: number;
  readonly actions: readonly Slot[];
  readonly state: readonly Slot[];
}

/** Episodes at one control rate, of one embodiment or of a mixture. */
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
  /** Of a mixture, the robots by name; the dimensions are then those of their slots, and an episode has its robot's. */
  readonly robots?: Readonly<Record<string, SlotMap>>;
  /** How often the robots of a mixture come, beside each other; n^0.43 of their n examples where it is not said. */
  readonly weights?: Readonly<Record<string, number>>;
}
