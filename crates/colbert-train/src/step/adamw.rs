//! AdamW (Loshchilov and Hutter 2019) with torch's formulas, and global-norm clipping.
//!
//! State is kept in the module's own order and written by parameter name, so a checkpoint does not depend on ids that
//! burn draws at random.

use burn::module::{AutodiffModule, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::backend::Backend;
use burn::tensor::{ElementConversion, Tensor, TensorData, TensorPrimitive};
use colbert_kernels::{KernelAutodiffBackend, Kernels, Update, adamw_step, sum_of_all, sum_of_squares};
use colbert_model::{DeviceTensor, ModelError, Weights};

use crate::step::groups::Group;

pub(crate) const BETA1: f64 = 0.9;
pub(crate) const BETA2: f64 = 0.999;
pub(crate) const EPS: f64 = 1e-8;

/// First and second moment of a parameter, flattened.
#[derive(Debug, Clone)]
struct Moments<B: Backend> {
    first: Tensor<B, 1>,
    second: Tensor<B, 1>,
}

/// The optimizer: betas 0.9 and 0.999, eps 1e-8, decay on every parameter that gets a gradient (torch defaults, which
/// colbert-ai uses). A parameter without a gradient is neither moved nor decayed.
#[derive(Debug, Clone)]
pub(crate) struct AdamW<B: Backend> {
    weight_decay: f64,
    updates: u32,
    /// The treatment of each parameter in the module's order; all alike if empty.
    groups: Vec<Group>,
    moments: Vec<Option<Moments<B>>>,
}

impl<B: Backend> AdamW<B> {
    /// Creates a fresh optimizer.
    pub(crate) fn new(weight_decay: f64) -> Self {
        Self { weight_decay, updates: 0, groups: Vec::new(), moments: Vec::new() }
    }

    /// Updates done.
    pub(crate) fn updates(&self) -> u32 {
        self.updates
    }

    /// Returns whether the parameters have been put into groups.
    pub(crate) fn has_groups(&self) -> bool {
        !self.groups.is_empty()
    }

    /// Treats each parameter by its group, in the module's order.
    pub(crate) fn set_groups(&mut self, groups: Vec<Group>) {
        self.groups = groups;
    }

    /// Makes one update. Every gradient is multiplied by `scale` first (clipping).
    pub(crate) fn step<AB, M>(&mut self, model: M, gradients: GradientsParams, learning_rate: f64, scale: f64) -> M
    where
        AB: KernelAutodiffBackend<InnerBackend = B>,
        M: AutodiffModule<AB>,
    {
        self.updates += 1;
        let all = colbert_kernels::AdamW {
            learning_rate,
            beta_1: BETA1,
            beta_2: BETA2,
            eps: EPS,
            weight_decay: self.weight_decay,
            step: self.updates.into(),
            gradient_scale: scale,
        };
        let (groups, moments) = (&self.groups, &mut self.moments);
        let mut mover = Mover { all, gradients, groups, moments, waiting: Vec::new(), moved: Vec::new() };
        let model = model.map(&mut mover);
        mover.take_steps();
        model.map(&mut Replacer(mover.moved.into_iter()))
    }

    /// Returns the moments as named tensors: `exp_avg.NAME` and `exp_avg_sq.NAME`, flattened, for the parameters that
    /// have them. `names` are the module's parameters in its own order.
    pub(crate) fn state(&self, names: &[String]) -> Vec<(String, DeviceTensor)> {
        let mut state = Vec::new();
        for (name, moments) in names.iter().zip(&self.moments) {
            let Some(moments) = moments else { continue };
            for (kind, tensor) in [("exp_avg", &moments.first), ("exp_avg_sq", &moments.second)] {
                let tensor = tensor.clone();
                let lazy = DeviceTensor::new(tensor.dims().to_vec(), move || {
                    tensor.to_data().convert::<f32>().into_vec().expect("the data was converted to f32")
                });
                state.push((format!("{kind}.{name}"), lazy));
            }
        }
        state
    }

    /// Restores the optimizer after `updates` updates, with moments from [`AdamW::state`]; `parameters` are the
    /// module's, with their shapes and in its order.
    ///
    /// # Errors
    /// One moment of a parameter is there and the other is not, or one is not of the parameter's size.
    pub(crate) fn restore(
        weight_decay: f64,
        updates: u32,
        parameters: &[(String, Vec<usize>)],
        state: &mut Weights,
        device: &B::Device,
    ) -> Result<Self, ModelError> {
        let mut moments = Vec::with_capacity(parameters.len());
        for (name, shape) in parameters {
            let (first, second) = (format!("exp_avg.{name}"), format!("exp_avg_sq.{name}"));
            if !state.contains(&first) && !state.contains(&second) {
                moments.push(None);
                continue;
            }
            let size = [shape.iter().product()];
            let mut take = |name: &str| {
                state.take(name, &size).map(|t| Tensor::from_data(TensorData::new(t.values, t.shape), device))
            };
            moments.push(Some(Moments { first: take(&first)?, second: take(&second)? }));
        }
        Ok(Self { weight_decay, updates, groups: Vec::new(), moments })
    }
}

impl Group {
    /// Returns the update of a parameter of the group. One that was frozen begins to count when it begins to move, as
    /// its moments do.
    fn update(self, all: colbert_kernels::AdamW) -> colbert_kernels::AdamW {
        colbert_kernels::AdamW {
            learning_rate: all.learning_rate * self.rate,
            weight_decay: if self.decays { all.weight_decay } else { 0.0 },
            step: all.step.saturating_sub(self.frozen_for.into()).max(1),
            ..all
        }
    }
}

/// Parameters that take their step together: as many as one launch has on a GPU. Not all of them, so that the first step
/// frees gradients while it makes moments.
const TOGETHER: usize = 32;

/// Takes parameters that have a gradient out of a module and moves them. A mapper sees one at a time, so those that wait
/// leave a tensor without memory in their place.
struct Mover<'a, B: Backend> {
    all: colbert_kernels::AdamW,
    gradients: GradientsParams,
    groups: &'a [Group],
    moments: &'a mut Vec<Option<Moments<B>>>,
    /// Places in the module's order, and the steps to take.
    waiting: Vec<(usize, Update<Tensor<B, 1>>)>,
    /// Flattened, in the module's order; nothing for a parameter without a gradient.
    moved: Vec<Option<Tensor<B, 1>>>,
}

impl<B: Kernels> Mover<'_, B> {
    fn take_steps(&mut self) {
        let (places, updates): (Vec<_>, Vec<_>) = self.waiting.drain(..).unzip();
        for (place, moved) in places.into_iter().zip(adamw_step(updates)) {
            self.moments[place] = Some(Moments { first: moved.mean, second: moved.square });
            self.moved[place] = Some(moved.parameter);
        }
    }
}

impl<AB: KernelAutodiffBackend> ModuleMapper<AB> for Mover<'_, AB::InnerBackend> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<AB, D>>) -> Param<Tensor<AB, D>> {
        let place = self.moved.len();
        self.moved.push(None);
        if self.moments.len() <= place {
            self.moments.push(None);
        }
        let (id, tensor, mapper) = param.consume();
        let Some(gradient) = self.gradients.remove::<AB::InnerBackend, D>(id) else {
            return Param::from_mapped_value(id, tensor, mapper);
        };
        let one = Tensor::<AB::InnerBackend, D>::empty([1; D], &tensor.device());
        let instead = Tensor::from_inner(one.expand(tensor.shape())).set_require_grad(tensor.is_require_grad());
        let size = tensor.shape().num_elements();
        let parameter = tensor.inner().reshape([size]);
        let zeros = || Tensor::zeros([size], &parameter.device());
        let Moments { first, second } =
            self.moments[place].take().unwrap_or_else(|| Moments { first: zeros(), second: zeros() });
        let options = self.groups.get(place).copied().unwrap_or_default().update(self.all);
        let moments = colbert_kernels::Moments { parameter, mean: first, square: second };
        self.waiting.push((place, Update { moments, gradient: gradient.reshape([size]), options }));
        if self.waiting.len() == TOGETHER {
            self.take_steps();
        }
        Param::from_mapped_value(id, instead, mapper)
    }
}

/// Puts the parameters that have moved back into the module.
struct Replacer<B: Backend>(std::vec::IntoIter<Option<Tensor<B, 1>>>);

impl<AB: KernelAutodiffBackend> ModuleMapper<AB> for Replacer<AB::InnerBackend> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<AB, D>>) -> Param<Tensor<AB, D>> {
        let Some(moved) = self.0.next().expect("a module has as many parameters as before") else {
            return param;
        };
        let (id, instead, mapper) = param.consume();
        let tensor = Tensor::from_inner(moved.reshape(instead.shape())).set_require_grad(instead.is_require_grad());
        Param::from_mapped_value(id, tensor, mapper)
    }
}

struct Present<'a, B: Backend> {
    gradients: &'a GradientsParams,
    found: Vec<TensorPrimitive<B>>,
}

impl<AB: KernelAutodiffBackend> ModuleVisitor<AB> for Present<'_, AB::InnerBackend> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<AB, D>>) {
        let gradient = self.gradients.get::<AB::InnerBackend, D>(param.id);
        self.found.extend(gradient.map(Tensor::into_primitive));
    }
}

/// Computes the L2 norm of all gradients together; 0 if there are none.
pub(crate) fn gradient_norm<AB: KernelAutodiffBackend, M: AutodiffModule<AB>>(
    model: &M,
    gradients: &GradientsParams,
) -> f64 {
    let mut present = Present::<AB::InnerBackend> { gradients, found: Vec::new() };
    model.visit(&mut present);
    if present.found.is_empty() {
        return 0.0;
    }
    sum_of_squares(present.found).sqrt().into_scalar().elem::<f64>()
}

struct All<B: Backend>(Vec<TensorPrimitive<B>>);

impl<AB: KernelAutodiffBackend> ModuleVisitor<AB> for All<AB::InnerBackend> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<AB, D>>) {
        self.0.push(param.val().inner().into_primitive());
    }
}

/// Sums all parameters: not finite if one of them is not, and the same bits wherever they are the same.
pub(crate) fn sum_of_weights<AB: KernelAutodiffBackend, M: AutodiffModule<AB>>(model: &M) -> f64 {
    let mut all = All::<AB::InnerBackend>(Vec::new());
    model.visit(&mut all);
    if all.0.is_empty() {
        return 0.0;
    }
    sum_of_all(all.0).into_scalar().elem::<f64>()
}

/// Returns the factor that brings a gradient of this norm down to `limit`; 1 if it is below, or if `limit` is 0 (no
/// clipping). Formula: torch `clip_grad_norm_`.
pub(crate) fn clip_factor(norm: f64, limit: f64) -> f64 {
    if limit == 0.0 { 1.0 } else { (limit / (norm + 1e-6)).min(1.0) }
}
