/**
 * The network, computed in the page: forward, backward, and each cell's terms, in float64.
 *
 * It is a second implementation of what Python computed; the page compares the two and shows the largest deviation.
 */

import { RULES } from "./layers.js";
import { alike, judge, lossGradient, lossGradientTerms, oneHot, predictionTerms } from "./losses.js";
import { flatten, largest, parseCell, sizeOf, unpack } from "./tensor.js";

/**
 * @typedef {import("./tensor.js").PackedArray} PackedArray
 * @typedef {import("./terms.js").Term} Term
 * @typedef {import("./terms.js").Of} Of
 * @typedef {import("./losses.js").LossSpec} LossSpec
 * @typedef {import("./optimizers.js").OptimizerSpec} OptimizerSpec
 *
 * @typedef {object} NodeSpec
 * @property {string} name
 * @property {string} type
 * @property {string[]} inputs
 * @property {Record<string, any>} fields
 * @property {number[]} shape of one image's output
 * @property {string} [shares] the layer whose parameters it computes with, where it has none of its own
 * @property {string} [opaque] why the page cannot compute this layer
 *
 * @typedef {NodeSpec & {
 *   parameters: Record<string, PackedArray>,
 *   state: string[],
 *   output: PackedArray,
 *   gradient: PackedArray,
 *   parameter_gradients: Record<string, PackedArray>,
 *   withheld: Record<string, number[]>,
 *   mask?: PackedArray,
 *   input_gradients?: PackedArray[],
 * }} PackedNode
 *
 * @typedef {object} Payload
 * @property {string} name
 * @property {string} origin the file that the model comes from
 * @property {"evaluation" | "training"} mode
 * @property {number} count images traced
 * @property {number} sample the one on show
 * @property {{split: string | null, index: number | null, assumed: boolean}} image
 * @property {{shape: number[], value: PackedArray, gradient: PackedArray}} input
 * @property {Omit<LossSpec, "prediction" | "target">[]} losses that of the network's output first
 * @property {PackedArray} measured the loss that Python computed
 * @property {number[] | null} labels
 * @property {PackedArray | null} target where it is no label
 * @property {string[]} classes
 * @property {PackedNode[]} nodes in the order in which they are computed
 * @property {string} output the node whose output goes to the head
 * @property {OptimizerSpec & {state: Record<string, Record<string, PackedArray>>}} optimizer
 * @property {{label: string, shown: boolean, parameters: Record<string, PackedArray>}[]} checkpoints
 * @property {{images: PackedArray, labels: number[] | null, target: PackedArray | null, count: number} | null} batch
 * @property {Record<string, Payload>} [miniatures]
 *
 * What a rule sees of the pass at its node:
 * @typedef {object} Call
 * @property {NodeSpec} node
 * @property {number} count images
 * @property {number} size of one image's output
 * @property {number[][]} inShapes
 * @property {number[]} inSizes
 * @property {Float64Array[]} xs
 * @property {Record<string, Float64Array>} params
 * @property {Float64Array | null} mask of dropout
 * @property {boolean} training
 * @property {Float64Array} y
 * @property {Float64Array} dy
 * @property {unknown} saved what `forward` leaves for the rest
 *
 * @typedef {object} Rule
 * @property {(call: Call) => {y: Float64Array, saved: unknown}} forward
 * @property {(call: Call, mistake: string | null) => {dxs: Float64Array[], grads: Record<string, Float64Array>}} backward
 * @property {(call: Call, at: number, sample: number) => Term[]} valueTerms of an output
 * @property {(call: Call, k: number, at: number, sample: number) => Term[]} inputTerms of the gradient at the k-th input
 * @property {(call: Call, key: string, at: number) => Term[]} parameterTerms of a parameter's gradient
 *
 * @typedef {object} Pass
 * @property {Map<string, Call>} calls
 * @property {Map<string, Float64Array>} values
 * @property {Map<string, Float64Array>} gradients at every output, `input` among them, and of every parameter
 * @property {import("./losses.js").Judged[]} judged by each loss
 * @property {number} loss the weighted sum
 *
 * @typedef {Map<string, Float64Array>} Parameters by `<layer>.<key>`
 */

export const INPUT = "input";
/** @type {Float64Array} */
const NOTHING = new Float64Array(0);

export class Network {
  /** @param {Payload} payload */
  constructor(payload) {
    this.payload = payload;
    this.nodes = payload.nodes;
    this.output = payload.output;
    this.count = payload.count;
    this.sample = payload.sample;
    /** @type {Map<string, PackedNode>} */
    this.byName = new Map(payload.nodes.map((node) => [node.name, node]));
    /** @type {Map<string, number[]>} */
    this.shapes = new Map([[INPUT, payload.input.shape]]);
    /** @type {Map<string, {node: string, input: number}[]>} */
    this.readers = new Map([[INPUT, []]]);
    /** @type {Parameters} */
    this.given = new Map();
    /** @type {Map<string, Float64Array>} */
    this.masks = new Map();
    /** @type {Map<string, {node: string, key: string}>} */
    this.owners = new Map();
    /** The layers that compute with the parameters of one, itself among them. @type {Map<string, string[]>} */
    this.uses = new Map();
    /** @type {Set<string>} parameters with a gradient */
    this.trainable = new Set();
    for (const node of payload.nodes) {
      this.shapes.set(node.name, node.shape);
      this.readers.set(node.name, []);
      this.uses.set(ownerOf(node), [...(this.uses.get(ownerOf(node)) ?? []), node.name]);
      if (node.mask) this.masks.set(node.name, unpack(node.mask));
      const shapes = { ...node.withheld, ...mapValues(node.parameters, (packed) => packed.shape) };
      for (const [key, shape] of Object.entries(shapes)) {
        const name = `${node.name}.${key}`;
        this.shapes.set(name, shape);
        this.owners.set(name, { node: node.name, key });
        if (node.parameters[key]) this.given.set(name, unpack(node.parameters[key]));
        if (!node.state.includes(key)) this.trainable.add(name);
      }
    }
    for (const node of payload.nodes) {
      node.inputs.forEach((source, input) => this.readers.get(source)?.push({ node: node.name, input }));
    }
    const outShape = /** @type {number[]} */ (this.shapes.get(this.output));
    this.channels = outShape[0];
    /** @type {LossSpec[]} */
    this.losses = payload.losses.map((loss, k) => {
      const [prediction, target] = ["prediction", "target"].map((name) => (k ? `${loss.layer}.${name}` : name));
      return { ...loss, prediction, target };
    });
    /** What only the losses know, unless a layer has its name. */
    this.beyond = [...this.losses.flatMap(({ prediction, target }) => [prediction, target]), "loss"].filter(
      (name) => !this.shapes.has(name),
    );
    for (const name of this.beyond) this.shapes.set(name, name === "loss" ? [] : outShape);
    this.givenInput = unpack(payload.input.value);
    /** The numbers that the page works with; edits change them. @type {Parameters} */
    this.parameters = new Map();
    /** @type {Float64Array} */
    this.input = NOTHING;
    this.labels = payload.labels ? [...payload.labels] : null;
    /** What the network should give, before label smoothing. @type {Float64Array} */
    this.numbers = NOTHING;
    /** @type {Pass | null} */
    this.current = null;
    /** How long a forward pass takes. */
    this.seconds = 0;
    this.reset();
  }

  /** Go back to the numbers as Python wrote them, with other parameters where they are given. @param {Parameters} [parameters] */
  reset(parameters = this.given) {
    this.parameters = new Map([...parameters].map(([name, values]) => [name, values.slice()]));
    this.input = this.givenInput.slice();
    this.labels = this.payload.labels ? [...this.payload.labels] : null;
    this.numbers = this.payload.target
      ? unpack(this.payload.target)
      : oneHot(this.labels ?? [], this.size(this.output) || 1);
    this.current = null;
  }

  /** @param {number} label */
  setLabel(label) {
    if (!this.labels) return;
    this.labels[this.sample] = label;
    this.numbers = oneHot(this.labels, this.size(this.output));
    this.current = null;
  }

  /** @param {string} tensor */
  shape(tensor) {
    const shape = this.shapes.get(tensor);
    if (!shape) throw new Error(`there is no tensor ${tensor}`);
    return shape;
  }

  /** @param {string} tensor */
  size(tensor) {
    return sizeOf(this.shape(tensor));
  }

  /** The layers that compute with a parameter; undefined for another tensor. @param {string} tensor */
  usesOf(tensor) {
    return this.uses.get(this.owners.get(tensor)?.node ?? "");
  }

  /** The first layer that the page cannot compute and that lies at a tensor or behind it. @param {string} tensor */
  blockedBy(tensor) {
    const behind = new Set(this.usesOf(tensor) ?? [tensor]);
    for (const node of this.nodes) {
      if (!behind.has(node.name) && node.inputs.some((source) => behind.has(source))) behind.add(node.name);
      if (behind.has(node.name) && node.opaque) return node;
    }
    return null;
  }

  /** The pass of the numbers as they are. @returns {Pass} */
  get pass() {
    if (!this.current) {
      const start = performance.now();
      const forward = this.forward();
      this.seconds = (performance.now() - start) / 1000;
      this.current = this.backward(forward);
    }
    return this.current;
  }

  /**
   * @param {object} [from]
   * @param {Float64Array} [from.input]
   * @param {Float64Array} [from.numbers]
   * @param {number} [from.count]
   * @param {Parameters} [from.parameters]
   * @param {{pass: Pass, tensor: string, values: Float64Array}} [from.changed] compute only what depends on this output
   * @returns {Pass}
   */
  forward({
    input = this.input,
    numbers = this.numbers,
    count = this.count,
    parameters = this.parameters,
    changed,
  } = {}) {
    /** @type {Map<string, Float64Array>} */
    const values = new Map([[INPUT, input]]);
    /** @type {Map<string, Call>} */
    const calls = new Map();
    const moved = new Set([changed?.tensor]);
    if (changed?.tensor === INPUT) values.set(INPUT, changed.values);
    for (const node of this.nodes) {
      const before = changed?.pass.calls.get(node.name);
      if (before && !node.inputs.some((source) => moved.has(source))) {
        calls.set(node.name, before);
        values.set(node.name, node.name === changed?.tensor ? changed.values : before.y);
        continue;
      }
      moved.add(node.name);
      const call = this.call(node, values, parameters, count);
      Object.assign(call, node.opaque ? { y: unpack(node.output) } : RULES[node.type].forward(call));
      calls.set(node.name, call);
      values.set(node.name, call.y);
    }
    const judged = this.losses.map((loss) => {
      const z = /** @type {Float64Array} */ (values.get(loss.layer));
      return judge(loss, z, numbers, count, this.channels);
    });
    const loss = this.losses.reduce((sum, { weight }, k) => sum + weight * judged[k].loss, 0);
    return { calls, values, gradients: new Map(), judged, loss };
  }

  /**
   * @param {PackedNode} node
   * @param {Map<string, Float64Array>} values
   * @param {Parameters} parameters
   * @param {number} count
   * @returns {Call}
   */
  call(node, values, parameters, count) {
    /** @type {Record<string, Float64Array>} */
    const params = {};
    const owner = /** @type {PackedNode} */ (this.byName.get(ownerOf(node)));
    for (const key of Object.keys(owner.parameters)) {
      params[key] = /** @type {Float64Array} */ (parameters.get(`${owner.name}.${key}`));
    }
    const inShapes = node.inputs.map((source) => this.shape(source));
    return {
      node,
      count,
      size: sizeOf(node.shape),
      inShapes,
      inSizes: inShapes.map(sizeOf),
      xs: node.inputs.map((source) => /** @type {Float64Array} */ (values.get(source))),
      params,
      mask: this.masks.get(node.name) ?? null,
      training: this.payload.mode === "training",
      y: NOTHING,
      dy: NOTHING,
      saved: null,
    };
  }

  /**
   * Fill in the gradients of a pass, and return it.
   *
   * @param {Pass} pass
   * @param {string | null} [mistake] the name of one of the mistakes of the lab
   */
  backward(pass, mistake = null) {
    const { gradients, values } = pass;
    this.losses.forEach((loss, k) =>
      gradients.set(loss.layer, lossGradient(loss, pass.judged[k], this.channels, this.size(loss.layer))),
    );
    for (const node of [...this.nodes].reverse()) {
      const kept = /** @type {Call} */ (pass.calls.get(node.name));
      const silent = new Float64Array(kept.y.length); // where nothing that leads to the loss reads the layer
      const call = { ...kept, dy: gradients.get(node.name) ?? silent };
      pass.calls.set(node.name, call);
      gradients.set(node.name, call.dy);
      const { dxs, grads } = node.opaque ? this.asWritten(node) : RULES[node.type].backward(call, mistake);
      for (const [key, gradient] of Object.entries(grads)) {
        const others = gradients.get(`${ownerOf(node)}.${key}`); // of later uses of a shared layer
        gradients.set(`${ownerOf(node)}.${key}`, others ? others.map((value, l) => value + gradient[l]) : gradient);
      }
      node.inputs.forEach((source, k) => {
        const others = mistake === "overwrite" ? undefined : gradients.get(source);
        gradients.set(source, others ? others.map((value, l) => value + dxs[k][l]) : dxs[k]);
      });
    }
    if (!gradients.has(INPUT))
      gradients.set(INPUT, new Float64Array(/** @type {Float64Array} */ (values.get(INPUT)).length));
    return pass;
  }

  /** What Python computed for a layer that the page does not know. @param {PackedNode} node */
  asWritten(node) {
    return {
      dxs: (node.input_gradients ?? []).map(unpack),
      grads: mapValues(node.parameter_gradients, unpack),
    };
  }

  /**
   * The numbers of a tensor, of the whole batch.
   *
   * @param {string} tensor
   * @param {Of} of
   * @param {Pass} [pass]
   * @returns {Float64Array}
   */
  numbersOf(tensor, of, pass = this.pass) {
    if (!this.beyond.includes(tensor)) return this.numbersOfLayer(tensor, of, pass);
    if (tensor === "loss") return Float64Array.of(of === "gradient" ? 1 : pass.loss);
    const k = this.losses.findIndex(({ prediction, target }) => tensor === prediction || tensor === target);
    return tensor === this.losses[k].target ? pass.judged[k].target : pass.judged[k].prediction;
  }

  /** @param {string} tensor @param {Of} of @param {Pass} pass @returns {Float64Array} */
  numbersOfLayer(tensor, of, pass) {
    const found =
      of === "gradient" ? pass.gradients.get(tensor) : (pass.values.get(tensor) ?? this.parameters.get(tensor));
    return found ?? new Float64Array(this.size(tensor)).fill(NaN);
  }

  /**
   * The numbers of a tensor for the image on show.
   *
   * @param {string} tensor
   * @param {Of} of
   * @param {Pass} [pass]
   */
  shown(tensor, of, pass = this.pass) {
    const all = this.numbersOf(tensor, of, pass);
    if (this.owners.has(tensor) || !this.shape(tensor).length) return all;
    const size = this.size(tensor);
    return all.subarray(this.sample * size, (this.sample + 1) * size);
  }

  /**
   * A cell as tensor and place, from its text.
   *
   * @param {string} text
   */
  locate(text) {
    const { tensor, index } = parseCell(text);
    const shape = this.shape(tensor);
    const fits =
      index.length === shape.length && index.every((k, axis) => Number.isInteger(k) && k >= 0 && k < shape[axis]);
    if (!fits) throw new Error(`${tensor} has the shape ${shape.join("×")}: ${text} is not in it`);
    return { tensor, at: flatten(shape, index) };
  }

  /**
   * The terms of a cell of the image on show.
   *
   * @param {string} tensor
   * @param {Of} of
   * @param {number} at
   * @param {number} [sample]
   * @returns {Term[]}
   */
  terms(tensor, of, at, sample = this.sample) {
    const { calls, judged } = this.pass;
    const owner = this.owners.get(tensor);
    if (of === "value") {
      const call = calls.get(tensor);
      if (call && !call.node.opaque) return RULES[call.node.type].valueTerms(call, at, sample);
      const k = this.predictedBy(tensor);
      if (k < 0) return [];
      const { layer } = this.losses[k];
      const z = this.numbersOf(layer, "value");
      return predictionTerms(this.losses[k], judged[k], z, this.channels, this.size(layer), at, sample);
    }
    if (owner) {
      return (this.usesOf(tensor) ?? []).flatMap((use) => {
        const call = /** @type {Call} */ (calls.get(use));
        if (call.node.opaque) return [];
        return RULES[call.node.type].parameterTerms(call, owner.key, at).map((term) => ({ ...term, via: use }));
      });
    }
    const arriving = (this.readers.get(tensor) ?? []).flatMap(({ node, input }) => {
      const call = /** @type {Call} */ (calls.get(node));
      if (call.node.opaque) return [];
      return RULES[call.node.type].inputTerms(call, input, at, sample).map((term) => ({ ...term, via: node }));
    });
    const k = this.losses.findIndex(({ layer }) => layer === tensor);
    if (k < 0) return arriving;
    const start = lossGradientTerms(this.losses[k], judged[k], this.channels, this.size(tensor), at, sample);
    return [...start, ...arriving];
  }

  /** The number of the loss whose prediction a tensor is; -1 where it is none. @param {string} tensor */
  predictedBy(tensor) {
    return this.beyond.includes(tensor) ? this.losses.findIndex(({ prediction }) => prediction === tensor) : -1;
  }

  /**
   * The cells that are computed from a cell, each once.
   *
   * @param {string} tensor
   * @param {Of} of
   * @param {number} at
   * @returns {{tensor: string, of: Of, at: number, sample: number}[]}
   */
  usedBy(tensor, of, at) {
    if (of === "value") {
      const loss = this.losses.find(({ layer }) => layer === tensor);
      if (loss)
        return (loss.head === "softmax" ? alike(this.size(tensor), this.channels, at) : [at]).map((k) => ({
          tensor: loss.prediction,
          of,
          at: k,
          sample: this.sample,
        }));
      const predicted = this.predictedBy(tensor);
      if (predicted >= 0) return [{ tensor: this.losses[predicted].layer, of: "gradient", at, sample: this.sample }];
      // The gradient at a cell comes from those outputs that the cell went into.
      return distinct(this.terms(tensor, "gradient", at), (factor) => factor.of === "gradient").map((cell) => ({
        ...cell,
        of,
      }));
    }
    if (this.owners.has(tensor)) return [];
    // The gradient at an output goes to all that the output was computed from.
    return distinct(this.terms(tensor, "value", at), () => true).map((cell) => ({ ...cell, of: "gradient" }));
  }

  /**
   * Change a pixel or a parameter.
   *
   * @param {string} tensor
   * @param {number} at
   * @param {number} value
   */
  edit(tensor, at, value) {
    const blocked = this.blockedBy(tensor);
    if (blocked) throw new Error(`${blocked.name} ${blocked.opaque}, so nothing before it can be edited`);
    if (tensor === INPUT) this.input[this.sample * this.size(INPUT) + at] = value;
    else {
      const parameter = this.parameters.get(tensor);
      if (!parameter) throw new Error(`${tensor} cannot be edited: edit a pixel or a parameter`);
      parameter[at] = value;
    }
    this.current = null;
  }

  /** Subtract the gradient times the rate from every parameter. @param {number} rate */
  step(rate) {
    const { gradients } = this.pass;
    for (const name of this.trainable) {
      const parameter = this.parameters.get(name);
      const gradient = gradients.get(name);
      if (parameter && gradient) gradient.forEach((value, k) => (parameter[k] -= rate * value));
    }
    this.current = null;
  }

  /** The L2 norm of the gradient of all parameters. @param {Pass} [pass] */
  gradientNorm(pass = this.pass) {
    let sum = 0;
    for (const name of this.trainable) for (const value of pass.gradients.get(name) ?? []) sum += value * value;
    return Math.sqrt(sum);
  }

  /**
   * The loss with one cell's value moved; the cell may be a pixel, a parameter or a layer's output.
   *
   * @param {string} tensor
   * @param {number} at
   * @param {number} by
   */
  lossMoved(tensor, at, by) {
    const { pass } = this;
    if (this.owners.has(tensor)) {
      const moved = /** @type {Float64Array} */ (this.parameters.get(tensor)).slice();
      moved[at] += by;
      return this.forward({ parameters: new Map([...this.parameters, [tensor, moved]]) }).loss;
    }
    const values = /** @type {Float64Array} */ (pass.values.get(tensor)).slice();
    values[this.sample * this.size(tensor) + at] += by;
    return this.forward({ changed: { pass, tensor, values } }).loss;
  }

  /**
   * The derivative by central differences.
   *
   * @param {string} tensor
   * @param {number} at
   * @param {number} [h]
   */
  measured(tensor, at, h = 1e-5) {
    return (this.lossMoved(tensor, at, h) - this.lossMoved(tensor, at, -h)) / (2 * h);
  }

  /**
   * The largest deviation of the page's numbers from Python's finite ones, relative to the largest value, or the largest gradient,
   * of the whole network: single tensors may be what rounding leaves of larger numbers that cancel.
   */
  deviation() {
    const pass = this.backward(
      this.forward({ input: this.givenInput, parameters: this.given, numbers: this.givenNumbers() }),
    );
    /** @type {[string, Of, PackedArray][]} */
    const written = this.nodes.flatMap((node) => [
      [node.name, "value", node.output],
      [node.name, "gradient", node.gradient],
      ...Object.entries(node.parameter_gradients).map(
        ([key, packed]) => /** @type {[string, Of, PackedArray]} */ ([`${node.name}.${key}`, "gradient", packed]),
      ),
    ]);
    written.push([INPUT, "gradient", this.payload.input.gradient], ["", "value", this.payload.measured]);
    const theirs = written.map(([, , packed]) => unpack(packed));
    const scale = { value: 0, gradient: 0, update: 0 };
    written.forEach(([, of], k) => (scale[of] = Math.max(scale[of], largest(theirs[k]))));
    const result = { largest: 0, absolute: 0, tensor: "", cells: 0 };
    written.forEach(([tensor, of], k) => {
      const mine = tensor ? this.numbersOf(tensor, of, pass) : Float64Array.of(pass.loss);
      theirs[k].forEach((value, l) => {
        result.cells++;
        if (mine[l] === value || !Number.isFinite(value)) return;
        const absolute = Math.abs(mine[l] - value);
        const off = absolute / (scale[of] || 1);
        if (!(off <= result.largest)) Object.assign(result, { largest: off, absolute, tensor });
      });
    });
    return result;
  }

  givenNumbers() {
    if (this.payload.target) return unpack(this.payload.target);
    return oneHot(this.payload.labels ?? [], this.size(this.output));
  }
}

/** The layer whose parameters a layer computes with: itself, unless it shares those of another. @param {NodeSpec} node */
export function ownerOf(node) {
  return node.shares ?? node.name;
}

/**
 * @param {Term[]} terms
 * @param {(factor: import("./terms.js").Factor) => boolean} wanted
 */
function distinct(terms, wanted) {
  /** @type {Map<string, import("./terms.js").Factor>} */
  const found = new Map();
  for (const { factors } of terms) {
    for (const factor of factors) {
      if (wanted(factor)) found.set(`${factor.tensor} ${factor.of} ${factor.at} ${factor.sample}`, factor);
    }
  }
  return [...found.values()].map(({ tensor, of, at, sample }) => ({ tensor, of, at, sample }));
}

/**
 * @template A, B
 * @param {Record<string, A>} record
 * @param {(value: A) => B} change
 * @returns {Record<string, B>}
 */
function mapValues(record, change) {
  return Object.fromEntries(Object.entries(record).map(([key, value]) => [key, change(value)]));
}
