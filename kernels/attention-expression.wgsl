// A mask and a score of attention, as WGSL expressions, tried out once when they are registered (attention-expression.ts).
//
//   countAllowed    how many token pairs of each tile pair the mask allows: none, all (a full tile, whose mask is never evaluated) or some
//   maskTokens      0 for every token pair that the mask allows, -1e30 for the others: what unfused operations add to their scores
//   differentiate   f(s - step), f(s), f(s + step) and f'(s) of the score f at drawn points, for finite differences on the host
//
// `plan` holds the tiles (first token, tokens: 2 words each), the points (s as bits, q, k, head: 4 words each), the token data
// [samples, tokens] and the constants. The marked functions are the same in every kernel file of attention; q and k are tokens
// of the layout.

const TILE: u32 = 32u;                                                                                           // @param  tokens of a tile
fn allowed(q: i32, k: i32, queryData: u32, keyData: u32) -> bool { return true; }                                // @param
fn score(score: f32, q: i32, k: i32, head: i32, queryData: u32, keyData: u32) -> f32 { return score; }           // @param
fn scoreDerivative(score: f32, q: i32, k: i32, head: i32, queryData: u32, keyData: u32) -> f32 { return 1.0; }   // @param
fn tokenData(at: u32) -> u32 { return 0u; }                                                                      // @param
fn constant(index: i32) -> f32 { return bitcast<f32>(plan[shape.constantsAt + u32(index)]); }

struct Shape { tokens: u32, samples: u32, points: u32, pointsAt: u32, tokenDataAt: u32, constantsAt: u32, step: f32, width: u32 }

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> plan: array<u32>;
@group(0) @binding(2) var<storage, read_write> allowedPairs: array<atomic<u32>>;  // [samples, query tile, key tile], zero before
@group(0) @binding(3) var<storage, read_write> values: array<vec4f>;             // [points]
@group(0) @binding(4) var<storage, read_write> maskNumbers: array<f32>;          // [width, width]

// One workgroup a tile pair and sample, one thread a query token. A sum of integers is the same in any order.
@compute @workgroup_size(TILE)
fn countAllowed(@builtin(workgroup_id) pair: vec3u, @builtin(num_workgroups) tiles: vec3u, @builtin(local_invocation_index) row: u32) {
  let queryTile = 2u * pair.x;
  let keyTile = 2u * pair.y;
  if (row >= plan[queryTile + 1u]) { return; }
  let dataAt = shape.tokenDataAt + pair.z * shape.tokens;
  let q = plan[queryTile] + row;
  let queryData = tokenData(dataAt + q);
  let end = plan[keyTile] + plan[keyTile + 1u];
  var count = 0u;
  for (var k = plan[keyTile]; k < end; k++) {
    count += u32(allowed(i32(q), i32(k), queryData, tokenData(dataAt + k)));
  }
  atomicAdd(&allowedPairs[(pair.z * tiles.x + pair.x) * tiles.y + pair.y], count);
}

// One thread a token pair of the matrix [width, width]; places beyond the tokens are hidden.
@compute @workgroup_size(TILE)
fn maskTokens(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) thread: u32) {
  let q = workgroup.y;
  let k = workgroup.x * TILE + thread;
  if (k >= shape.width) { return; }
  let inside = q < shape.tokens && k < shape.tokens;
  let seen = inside && allowed(i32(q), i32(k), tokenData(shape.tokenDataAt + q), tokenData(shape.tokenDataAt + k));
  maskNumbers[q * shape.width + k] = select(-1e30, 0.0, seen);
}

// One thread a point; the samples take turns.
@compute @workgroup_size(TILE)
fn differentiate(@builtin(global_invocation_id) id: vec3u) {
  let point = id.x;
  if (point >= shape.points) { return; }
  let at = shape.pointsAt + 4u * point;
  let s = bitcast<f32>(plan[at]);
  let q = i32(plan[at + 1u]);
  let k = i32(plan[at + 2u]);
  let head = i32(plan[at + 3u]);
  let dataAt = shape.tokenDataAt + (point % shape.samples) * shape.tokens;
  let queryData = tokenData(dataAt + u32(q));
  let keyData = tokenData(dataAt + u32(k));
  values[point] = vec4f(
    score(s - shape.step, q, k, head, queryData, keyData),
    score(s, q, k, head, queryData, keyData),
    score(s + shape.step, q, k, head, queryData, keyData),
    scoreDerivative(s, q, k, head, queryData, keyData),
  );
}
