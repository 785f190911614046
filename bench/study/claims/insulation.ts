/** Claims of knowledge insulation (arXiv 2505.23705) and pi0 (arXiv 2410.24164). */
import type { Claim } from './claim.ts';

/** Margins: of rates, of errors relative to the best constant chunk or velocity, and of times. */
const [RATE, ERROR, TIME] = [0.1, 0.05, 0.1];
const error = { measure: 'action error', margin: ERROR } as const;
const success = { measure: 'success', margin: RATE } as const;
const rightObject = { measure: 'right object', margin: RATE } as const;
const time = { measure: 'time', margin: TIME } as const;

const KI = 'knowledge-insulation';
const KI_PLACES = 'knowledge-insulation-places';
const KI_CALL = 'call-time:knowledge-insulation-robot-only';

export const insulationClaims: readonly Claim[] = [
  {
    ...{ number: '1', name: 'convergence', source: 'arXiv 2505.23705, figure 6b' },
    says: 'At equal steps knowledge insulation learns as fast as pi0-FAST, and far faster than pi0 (7.5 times).',
    here: 'Measured as the mean error of actions over the course of training, since success stays at its floor without places. A sampled chunk has more error than a decoded one of equal skill, which is against the flows in the comparison with pi0-FAST; a pilot of that (seed 100) still had an error above the constant after 300 steps.',
    tests: [
      { arms: [KI, 'pi0'], measure: 'error over steps', says: 'lower', margin: ERROR },
      { arms: [KI, 'pi0-continuous-state'], measure: 'error over steps', says: 'lower', margin: ERROR },
      { arms: [KI, 'pi0-fast'], measure: 'error over steps', says: 'alike', margin: ERROR },
      { arms: [KI, 'pi0-fast'], measure: 'mean error', says: 'alike', margin: ERROR },
      { arms: [KI, 'pi0'], measure: 'error over seconds', says: 'lower', margin: ERROR },
      { arms: [KI_PLACES, 'pi0-places'], ...success, says: 'higher' },
    ],
  },
  {
    ...{ number: '2', name: 'frozen', source: 'arXiv 2505.23705, figures 4a and 8' },
    says: 'A frozen backbone fails.',
    here: "The backbone was pretrained on this very world, where the paper's had seen no robot.",
    tests: [
      { arms: ['frozen-backbone', KI], ...error, says: 'higher' },
      { arms: ['frozen-backbone', KI], measure: 'first error', margin: ERROR, says: 'higher' },
      { arms: ['frozen-backbone', KI], ...success, says: 'lower' },
      { arms: ['frozen-backbone-places', KI_PLACES], ...success, says: 'lower' },
    ],
  },
  {
    ...{ number: '3', name: 'following', source: 'arXiv 2505.23705, figure 4b' },
    says: 'The stop-gradient preserves language following, against joint training without vision-language data and against pi0.',
    here: 'With places, since without them few objects are lifted at all.',
    tests: [
      { arms: [KI_PLACES, 'joint-training-places'], ...rightObject, says: 'higher' },
      { arms: [KI_PLACES, 'pi0-places'], ...rightObject, says: 'higher' },
      { arms: [KI_PLACES, 'joint-training-places'], ...rightObject, scenes: 'other object', says: 'higher' },
      { arms: [KI_PLACES, 'pi0-places'], ...rightObject, scenes: 'other object', says: 'higher' },
      { arms: [KI, 'joint-training'], measure: 'pointing kept', margin: RATE, says: 'higher' },
      { arms: [KI, 'pi0'], measure: 'pointing kept', margin: RATE, says: 'higher' },
    ],
  },
  {
    ...{ number: '3b', name: 'transfusion-following', source: 'arXiv 2505.23705, section 6' },
    says: 'Transfusion follows language better than pi0.',
    here: 'The error of the first chunk of an episode stands for following: only picture and instruction tell it where to go. Transfusion with places has no expert that gets them as numbers, and a pilot (seed 100) succeeded in 1 of 50 scenes.',
    tests: [
      { arms: ['transfusion', 'pi0'], measure: 'first error', margin: ERROR, says: 'lower' },
      { arms: ['transfusion', 'pi0'], ...rightObject, says: 'higher' },
      { arms: ['transfusion', 'pi0'], ...error, says: 'lower' },
    ],
  },
  {
    ...{ number: '4', name: 'co-training', source: 'arXiv 2505.23705, figures 6, 7 and 9' },
    says: 'Vision-language data help with objects that no demonstration shows; without them insulation loses little else.',
    here: 'Questions are about the same world in a quarter of every batch, so that fewer examples of the robot are left. The objects are pairs of colour and shape that neither demonstrations nor questions show.',
    tests: [
      { arms: ['insulation-questions-places', KI_PLACES], ...success, scenes: 'pairs', says: 'higher' },
      { arms: ['insulation-questions-places', KI_PLACES], ...success, says: 'alike' },
      { arms: ['joint-questions-places', 'joint-training-places'], ...rightObject, scenes: 'pairs', says: 'higher' },
      { arms: ['joint-questions-places', 'insulation-questions-places'], ...success, says: 'lower' },
      { arms: ['insulation-questions', KI], measure: 'pointing kept', margin: RATE, says: 'higher' },
      { arms: ['joint-questions', 'joint-training'], measure: 'pointing kept', margin: RATE, says: 'higher' },
      { arms: ['insulation-questions', 'joint-questions'], ...error, says: 'lower' },
    ],
  },
  {
    ...{ number: '5', name: 'masks', source: 'arXiv 2505.23705, figure 4a' },
    says: 'Discrete action tokens must not see the continuous actions, as they do in HybridVLA.',
    here: 'HybridVLA in the form of the paper beside joint training with the same bin tokens: one edge differs.',
    tests: [
      { arms: ['hybrid-vla', 'joint-bins'], ...error, says: 'higher' },
      { arms: ['hybrid-vla', 'joint-bins'], measure: 'first error', margin: ERROR, says: 'higher' },
      { arms: ['hybrid-vla', 'joint-bins'], ...success, says: 'lower' },
    ],
  },
  {
    ...{ number: '6', name: 'tokens', source: 'arXiv 2505.23705, figures 4 and 5' },
    says: 'As targets of the backbone, FAST tokens are better than bins of every fifth action, these than bins of all, these than none.',
    here: 'Chunks have ten actions, where the paper has fifty. Without a token loss behind the stop-gradient the backbone is frozen. Strings of digits take 319 tokens a chunk; they are tried with claim 15.',
    tests: [
      { arms: [KI, 'insulation-bins'], ...error, says: 'lower' },
      { arms: [KI, 'insulation-stride'], ...error, says: 'lower' },
      { arms: ['insulation-stride', 'insulation-bins'], ...error, says: 'lower' },
      { arms: ['insulation-bins', 'frozen-backbone'], ...error, says: 'lower' },
      { arms: ['pi0-fast', 'pi0-fast-bins'], ...error, says: 'lower' },
      { arms: ['pi0-fast', 'pi0-fast-stride'], ...error, says: 'lower' },
      { arms: ['pi0-fast', 'pi0-fast-bins'], measure: 'malformed', margin: RATE, says: 'alike' },
    ],
  },
  {
    ...{ number: '7', name: 'transfusion', source: 'arXiv 2505.23705, figure 5' },
    says: 'Transfusion acts well, and is slower per chunk than knowledge insulation.',
    here: 'The expert is two thirds as wide as the backbone here, where it has a seventh of its parameters in the paper: the gap in time is narrower. The error of actions stands for success, which few steps leave at its floor.',
    tests: [
      { arms: ['call-time:transfusion', KI_CALL], ...time, says: 'higher' },
      { arms: ['transfusion', KI], ...error, says: 'alike' },
      { arms: ['transfusion', KI], measure: 'first error', margin: ERROR, says: 'alike' },
      { arms: ['transfusion', KI], ...success, says: 'alike' },
    ],
  },
  {
    ...{ number: '8', name: 'parallel', source: 'arXiv 2505.23705, figure 5' },
    says: 'Parallel decoding with an L1 loss (OpenVLA-OFT) is fast and follows language, with lower success.',
    here: 'Without FiLM, as in the paper. It cannot say places first, so that the error of actions stands for success: of the mean of eight sampled chunks, because a regression predicts a mean.',
    tests: [
      { arms: ['openvla-oft', KI], measure: 'mean error', margin: ERROR, says: 'higher' },
      { arms: ['openvla-oft', KI], measure: 'first error', margin: ERROR, says: 'alike' },
      { arms: ['openvla-oft', KI], ...rightObject, says: 'alike' },
      { arms: ['call-time:openvla-oft', KI_CALL], ...time, says: 'lower' },
      { arms: ['openvla-oft', KI], ...success, says: 'lower' },
    ],
  },
  {
    ...{ number: '9', name: 'state', source: 'arXiv 2505.23705, figure 10' },
    says: 'The state as text and as a continuous token are alike, special tokens are worse, and pi0 is worse with either.',
    here: 'Without places, because those bring the state as numbers.',
    tests: [
      { arms: ['insulation-special-tokens', KI], ...error, says: 'higher' },
      { arms: ['insulation-continuous-state', KI], ...error, says: 'alike' },
      { arms: ['insulation-expert-state', KI], ...error, says: 'alike' },
      { arms: ['pi0', KI], ...error, says: 'higher' },
      { arms: ['pi0-continuous-state', 'insulation-continuous-state'], ...error, says: 'higher' },
    ],
  },
  {
    ...{ number: '10', name: 'decoding', source: 'arXiv 2505.23705, section 4' },
    says: 'Decoding tokens one by one is much slower than the action expert.',
    here: 'A smooth chunk of ten actions has 17 FAST tokens; the flow takes ten steps. Latencies with random weights.',
    tests: [
      { arms: ['call-time:pi0-fast', KI_CALL], ...time, says: 'higher' },
      { arms: ['call-time:pi0-fast', 'call-time:openvla-oft'], ...time, says: 'higher' },
      { arms: ['call-time:frozen-backbone', KI_CALL], ...time, says: 'alike' },
    ],
  },
  {
    ...{ number: '11', name: 'pretraining', source: 'arXiv 2410.24164, section VI; arXiv 2412.14058, table VII' },
    says: 'A pretrained vision-language model helps success and language following.',
    here: 'The start is the vision-language model that comes with the program, pretrained on pictures of this world.',
    tests: [
      { arms: [KI_PLACES, 'insulation-scratch-places'], ...success, says: 'higher' },
      { arms: [KI_PLACES, 'insulation-scratch-places'], ...rightObject, says: 'higher' },
      { arms: [KI, 'insulation-scratch'], ...error, says: 'lower' },
      { arms: ['pi0-continuous-state', 'pi0-small'], ...error, says: 'lower' },
    ],
  },
  {
    ...{ number: '19', name: 'cost', source: 'arXiv 2505.23705, limitations' },
    says: 'The joint loss costs about 20 % more a training step.',
    here: 'One noise and time a chunk; knowledge insulation beside pi0.5 without its token loss, all else equal. Of the three runs each is a process of its own.',
    tests: [
      { arms: ['step-time:knowledge-insulation-robot-only', 'step-time:pi05'], ...time, less: 0.2, says: 'alike' },
      { arms: ['step-time:knowledge-insulation-robot-only', 'step-time:pi05'], ...time, says: 'higher' },
      {
        arms: ['step-time:knowledge-insulation-robot-only', 'step-time:joint-training-robot-only'],
        ...{ ...time, says: 'lower' },
      },
    ],
  },
  {
    ...{ number: 'A', name: 'soft', source: 'ours' },
    says: 'A tenth or a third of the gradient, in place of the stop, acts better and keeps as much of what the backbone knew.',
    here: 'No paper has tried it.',
    tests: [
      { arms: ['soft-insulation', KI], measure: 'flow loss', margin: ERROR, says: 'lower' },
      { arms: ['soft-insulation-0.1', KI], measure: 'flow loss', margin: ERROR, says: 'lower' },
      { arms: ['soft-insulation', KI], measure: 'pointing kept', margin: RATE, says: 'alike' },
      { arms: ['soft-insulation-0.1', KI], measure: 'pointing kept', margin: RATE, says: 'alike' },
      { arms: ['soft-insulation-places', KI_PLACES], ...success, says: 'higher' },
      { arms: ['soft-insulation-0.1-places', KI_PLACES], ...success, says: 'higher' },
    ],
  },
  {
    ...{ number: 'B', name: 'places', source: 'ours' },
    says: 'An expert that gets places as numbers succeeds in fewer steps, and the backbone keeps what it knew.',
    here: 'The token is what the README recommends.',
    tests: [
      { arms: [KI_PLACES, KI], ...success, says: 'higher' },
      { arms: [KI_PLACES, KI], measure: 'pointing kept', margin: RATE, says: 'higher' },
      { arms: ['frozen-backbone-places', 'frozen-backbone'], ...success, says: 'higher' },
    ],
  },
  {
    ...{
      number: 'C',
      name: 'draws',
      source: "LeRobot's PI052 (flow_num_repeats 5) and MolmoAct2 (arXiv 2605.02881, 8 times)",
    },
    says: 'Several noises and times for each chunk and step learn faster, at little cost.',
    here: 'Eight against one, at equal steps and at equal seconds.',
    tests: [
      { arms: [KI, 'insulation-one-draw'], measure: 'error over steps', margin: ERROR, says: 'lower' },
      { arms: [KI, 'insulation-one-draw'], measure: 'error over seconds', margin: ERROR, says: 'lower' },
      { arms: [KI, 'insulation-one-draw'], ...error, says: 'lower' },
    ],
  },
];
