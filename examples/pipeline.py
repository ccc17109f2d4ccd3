"""Scale X in a Pipeline and y in a TransformedTargetRegressor: the scores stay those of the plain estimator.

StandardScaler moves t and x0 but not y. skode finds the map from the rows with t = 0, where y is x0.
"""

import numpy as np
import torch
from sklearn.compose import TransformedTargetRegressor
from sklearn.dummy import DummyRegressor
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skode import SparseNODERegressor, from_trajectories
from skode.datasets import make_lotka_volterra

torch.set_num_threads(1)  # matrices this small are slower on two threads
system = make_lotka_volterra(n_trajectories=12, n_times=30, noise=0.05, irregular=True, random_state=0)
X, y, groups = from_trajectories(system.states, system.times)
plain = SparseNODERegressor(max_iter=400, tol=0.1, random_state=0)

models = {
    "training mean": DummyRegressor(),
    "skode": plain,
    "X scaled": make_pipeline(StandardScaler(), plain),
    "y scaled": TransformedTargetRegressor(plain, transformer=StandardScaler()),
    "both scaled": make_pipeline(StandardScaler(), TransformedTargetRegressor(plain, transformer=StandardScaler())),
}
print("R2 on held-out trajectories, three folds")
for name, model in models.items():
    scores = cross_val_score(model, X, y, groups=groups, cv=GroupKFold(3))
    print(f"  {name:15} {np.mean(scores):6.3f}   ({', '.join(f'{score:.3f}' for score in scores)})")
