/** Paragraphs of help that explain more than one option. */

export const dataNotes = [
  `Data sets (--data):
  LeRobot 2.0 to 3.0: the folder that holds meta/; for a data set of the Hub, the path that 'hf download --repo-type dataset' prints
  RLDS as in Open X-Embodiment: the folder with dataset_info.json and the TFRecord files
  HDF5 of ACT (ALOHA), robomimic or LIBERO: the file, or the folder of files
  LeRobot 1 (.arrow), .npz: the file, or the folder of one
  numbers as safetensors and images in packs: the folder with index.json; --dataset chooses one of several`,
  `Cameras that exist only as video are decoded by an installed ffmpeg into JPEG frames in the cache folder. Images are read when they are needed, and so are actions and states beyond 256 MiB. Language, images or state that the data lack are named, and the model trains without them.`,
];

export const trainingNotes = [
  ...dataNotes,
  `Actions and states are normalised by the 1 % and 99 % quantiles of the training episodes. A FAST tokenizer is fitted to the training data (to a sample of 8,192 steps if there are more than 32,768); a chunk that is longer than the model's token block is truncated, and the number truncated is reported.`,
  `Several data sets of one control rate train one model: --data A,B or --dataset droid,ur5. Each robot keeps its own statistics, its own held-out episodes and a slot map, which says where its dimensions stand in the padded vector and which are relative to the state: --robot ur5e,franka names openpi's; without it dimension i has slot i.`,
  `Co-training (--cotrain) adds captions, questions and pointing with location tokens, about rendered scenes of the built-in world or about your own images with names (--questions). 'insula act --ask' then gets answers. Every other example of robot data predicts its subtask before its action tokens, if the data have subtasks.`,
];

export const tokenizerNotes = [
  `Chunks are normalised by the 1 % and 99 % quantiles. The report counts tokens for a chunk and for a second of control, the error of each dimension in normalised units, zero coefficients, and how often each id is used. The error of the naive tokenizers is mostly clipping.`,
];

export const attentionNotes = [
  `Shapes (--shape): names of FlashAttention's and FlexAttention's benchmarks and of public VLA models ('suite' is all of them), or written out: batch, tokens (one block, prefix+action or prefix+fast+action), query heads / key heads, head dimension: B=1,T=816+128+50,H=8/1,D=256.`,
  `Masks (--mask): ready-made ones ('+' ANDs them and chains their scores, '|' ORs them: causal+alibi, soft-cap:50), tables over the blocks (insulation, frozen-prefix, cached-prefix), or WGSL over q and k. --score comes with its --derivative.`,
  `A row: milliseconds with quartiles, GFLOP/s of live work as the plan's tile lists hold it, time and live work divided by those of the dense mask, percent of the matrix product's rate and of the roof, the ratio to the same engine's unfused softmax(Q K^T + mask) V, memory, workgroups. Rates come from GPU timestamps where the adapter has them, else from wall time. Without options the run takes about a minute and names what it left out.`,
];

export const kernelNotes = [
  `Names of operations measure these alone: 'insula bench kernels gatedMlp attention'.`,
  `Every dispatch states its FLOPs and the bytes that have to move. '% roof' is the least time by the limiting resource (arithmetic rate, bandwidth of copies, launches), measured in the same rounds, divided by the time taken.`,
];

export const tuningNotes = [
  `Without a tuning file the shipped variants run, a table by capability in kernels/attention-variants.ts and kernels/matmul-variants.ts. --tune takes half a minute and writes another choice only where the quartiles are apart. A file for another adapter or driver is refused; one in bench/results/tuning/ is used by everyone with that adapter and driver.`,
];

export const stepNotes = [
  `A whole step (forward, backward, clipping, AdamW) is captured once and replayed as one list. Where Mesa is the driver, MESA_SHADER_CACHE_DISABLE=true before the command shows a cold start, by pipeline.`,
];
