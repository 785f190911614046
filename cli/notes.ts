/** Paragraphs of help about more than one option. */

export const dataNotes = [
  `Data sets (--data):
  LeRobot 2.0 to 3.0: the folder that holds meta/; for a data set of the Hub, the path that 'hf download --repo-type dataset' prints
  RLDS as in Open X-Embodiment: the folder with dataset_info.json and the TFRecord files
  HDF5 of ACT (ALOHA), robomimic or LIBERO: the file, or the folder of files
  .npz: the file, or the folder of one
  numbers as safetensors and images in packs: the folder with index.json; --dataset chooses one of several`,
  `The first opening reads every episode once, and keeps an index in the cache folder for as long as the files do not change; an interrupted one goes on where it stopped. Cameras that exist only as video are decoded by an installed ffmpeg into JPEG frames there. Images are read on demand, and so are actions and states beyond 256 MiB. Fields that are not read are named with the reason; insula data FOLDER shows what each becomes, and --map FILE chooses others. If the data lack language, images or state, a line reports it, and the model trains without them.`,
];

/** How training goes on elsewhere and comes back; no line of a command is longer than 80 columns. */
export const machinesNotes = [
  `Past one machine: pi0 and pi0.5 of the published sizes train on with the distributed engines of LeRobot (pip install "lerobot[pi,training]"), and come back:
  insula convert --data FOLDER --out there/data
  insula convert --checkpoint FILE --format lerobot --out there/policy
  accelerate launch --multi_gpu --num_processes 8 $(which lerobot-train) \\
    --policy.path=there/policy --policy.push_to_hub=false \\
    --dataset.repo_id=own/data --dataset.root=there/data \\
    --batch_size=4 --steps=3000 --output_dir=there/run
  insula convert --checkpoint there/run/checkpoints/last/pretrained_model \\
    --text-tokenizer there/policy/tokenizer --rate HZ --out back.safetensors
  insula evaluate --checkpoint back.safetensors --data FOLDER
insula train --from takes the same folder and --text-tokenizer, to train on here.`,
  `What changes on the way: the moments of the optimizer do not travel, so that they begin anew on each side. LeRobot has learning rate, warm-up and decay of its own (--policy.optimizer_lr, --policy.scheduler_warmup_steps), and --batch_size is that of one process. lerobot-train normalises by the quantiles of all episodes, in there/data/meta/stats.json, in place of those in there/policy; the folder that it writes has them, and the policy that comes back acts by them. LeRobot also learns the repeated last action behind the end of an episode.`,
  `With openpi, whose PyTorch programs train in several processes as well:
  insula convert --checkpoint FILE --format openpi --out there/openpi
In its repository, CONFIG names a TrainConfig with your data (in LeRobot 2.1, which Insula reads and does not write), pytorch_weight_path='.../there/openpi', and AssetsConfig(assets_dir='.../there/openpi/assets', asset_id='robot'), with which the normalisation stays:
  torchrun --standalone --nnodes=1 --nproc_per_node=8 \\
    scripts/train_pytorch.py CONFIG --exp_name RUN
  cd checkpoints/CONFIG/RUN/STEP && insula convert --checkpoint . \\
    --text-tokenizer PALIGEMMA --horizon STEPS --rate HZ --out back.safetensors
What comes back has openpi's cameras (base_0_rgb, left_wrist_0_rgb, right_wrist_0_rgb); --map gives those of your data these names.`,
];

/** What --preset chooses between. */
export const presetNote = `Presets (--preset): on two processor cores tiny trains in minutes and is pretrained in half an hour, small trains in a quarter of an hour and is pretrained in one; nano learns nothing of use. laptop, with pictures of 96 pixels, begins from random weights, because no model of its sizes comes with Insula, so that it needs hours and hundreds of episodes of your own --data to be of use. smol (the first 16 layers of SmolVLM2-500M, 1024 patches a picture of 512 pixels) and paligemma (PaliGemma and an expert of 300 M, 256 patches a picture of 224 pixels) have random weights in the system's own family of backbone, to measure and to plan: --plan says what a run takes.`;

/** What the folder of a run keeps. */
export const checkpointNote = `The folder of a run has the last two checkpoints, checkpoint.safetensors and checkpoint.previous.safetensors, and for a moment a third that is being written; on a full disk the older one makes room. --resume takes the newest that is whole, by the checksums in it. A step that cannot be saved is a warning, and the next save tries again; a state that is not finite is never saved, and ends the run. A run saves and ends when its terminal closes, under nohup too, because Node heeds the signal that nohup has it ignore: start a long run with setsid, or in tmux.`;

export const trainingNotes = [
  ...dataNotes,
  presetNote,
  `Actions and states are normalised by the 1 % and 99 % quantiles of the training episodes. Action tokens (--tokens, --tokenizer) spell the normalised chunks: a FAST tokenizer is fitted to the training data (to a sample of 8,192 steps if there are more than 32,768), the other kinds need no data. A target that is longer than the model's block for it is truncated, and the number truncated is reported.`,
  `With --precision bf16, matrices and the activations of transformers are bf16: half of their memory. Updates are rounded stochastically, by --seed, so that small ones are not lost; norms, biases, heads, losses, gradients and sums are f32. With --moments 8bit a training step takes about 0.6 of the memory of f32.`,
  `With --ema, the average of the weights is measured, acts and has the parameters' names in the checkpoint, so that insula act, evaluate and inspect use it; the weights that training goes on from are beside it, under optimizer/trainingWeight/. Gradient norms are those of the training weights.`,
  `With --delta, statistics and action tokens are those of the differences (a given norm_stats.json too, as openpi writes it), and acting adds the state. A line warns if the actions look like differences already.`,
  checkpointNote,
  `The folder of a run also has TensorBoard event files: tensorboard --logdir FOLDER shows losses, learning rate, gradient norms, held-out losses with their baselines, and acting (--act-every) while the run goes on.`,
  `Groups of parameters (--freeze, --rates) are the vision tower and the experts, heads included; a pattern such as '*.bias' selects parameters by their names in the checkpoint. If several match a parameter, the last one decides, and what is frozen stays frozen.`,
  `With --lora, the weights that are kept are written once, to base-<checksum>.safetensors in the folder of the run; the checkpoints beside it have the others and need it. insula convert --checkpoint FILE --out FILE writes one file for acting, in which the low-rank matrices are merged into those beside them. A pattern such as '*.mlp.*lora*' selects low-rank matrices by their names.`,
  `Several data sets of one control rate train one model: --data A,B or --dataset droid,ur5. Each robot keeps its own statistics, its own held-out episodes and a slot map, which gives the position of its dimensions in the padded vector and marks those that are relative to the state: --robot ur5e,franka names openpi's slot maps; without it dimension i has slot i.`,
  `A start (--from) gives the tower and the backbone of a vision-language model, with its text vocabulary and location tokens, and in the built-in world the statistics of its state; lines list the groups of parameters that begin anew and the tensors that have no place. Its sizes must be those of --preset.`,
  `Co-training (--cotrain) adds captions, questions and pointing with location tokens, about rendered scenes of the built-in world or about your own images (--questions). 'insula act --ask' then answers questions. With --subtask none, every other example of robot data predicts its subtask in words before its action tokens, if the data have subtasks.`,
];

export const tokenizerNotes = [
  `Chunks are normalised by the 1 % and 99 % quantiles. The report gives tokens per chunk and per second of control, the error of each dimension in normalised units, the share of zero coefficients, and how many ids are in use. The error of the naive tokenizers is mostly clipping.`,
];

const comparisonNote = `--compare BUILD measures this build and another, a folder with a checkout or a commit, by turns, in new processes again and again, because processes of one program differ too. It needs eight such blocks: the fewer rows, the sooner. --compare FILE, an earlier --out, cannot tell a change from another load, and its intervals are as wide as the change of known work beside the rows. Interrupted, a run writes what it has measured.`;

export const attentionNotes = [
  `Shapes (--shape): names of FlashAttention's and FlexAttention's benchmarks and of public VLA models ('suite' is all of them), or written out: batch, tokens (one block, prefix+action or prefix+fast+action), query heads / key heads, head dimension: B=1,T=816+128+50,H=8/1,D=256.`,
  `Masks (--mask): ready-made ones ('+' ANDs them and chains their scores, '|' ORs them: causal+alibi, soft-cap:50), tables over the blocks (insulation, soft-insulation:0.1, frozen-prefix, cached-prefix), or WGSL over q and k. --score comes with its --derivative.`,
  `The first lines answer: which variant to use, by how much, how sure (a 99 % interval of the ratio in the same rounds), how far from the roof and what limits it. Rounds go on until every case is decided, or for --rounds, or until --seconds are spent. Rates count live work alone: 2 products of each live pair of query and key forward, 5 backward. Without --shape the output lists the cases that it left out.`,
  comparisonNote,
];

export const kernelNotes = [
  `Names of operations restrict the measurement to them: 'insula bench kernels gatedMlp attention'.`,
  `FLOPs and bytes come from the cost model of each dispatch. '% roof' is the least time by the limiting resource (arithmetic rate, bandwidth of copies, launches), measured in the same rounds, divided by the time taken.`,
  comparisonNote,
];

export const verifyNotes = [
  `Every op runs at whole and at odd sizes, in every storage, and products and attention in every variant that the adapter can run: output and gradients are compared with kernels/reference, the same formulas in float64, where gradients are central differences, and those of attention its formula. A large gradient is compared in some elements, evenly spaced.`,
  `The training step is that of a tiny model of knowledge insulation: its losses, the gradients of every parameter along a random direction and the update beside float64, the captured step beside an eager one to the bit, and the gradients of exactly zero that insulation promises.`,
  `The exit status is 1 if anything departs. Attach the output, or the file of --out, to a bug report; nothing else is written.`,
];

export const tuningNotes = [
  `Without a tuning file the shipped variants run; kernels/attention-variants.ts and kernels/matmul-variants.ts choose them by the adapter's capabilities. --tune takes a minute and replaces a shipped variant only if another is faster beyond doubt. A file for another adapter or driver is refused; a file in bench/results/tuning/ is used by everyone with that adapter and driver. --experimental measures products of f16 with subgroup matrices too, for a file that --tuning names; a command that names it takes them.`,
];

export const stepNotes = [
  `A whole step (forward, backward, clipping, AdamW) is captured once and replayed as one list. With a Mesa driver, MESA_SHADER_CACHE_DISABLE=true before the command shows the compile time of each pipeline without a cache.`,
  comparisonNote,
];
