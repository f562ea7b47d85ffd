"""What an implementation of DeepCluster v1 and v2 and of SeLa, and of looks at all images, can get wrong."""

from mutations.fault import Fault

V1 = "objectives/test_deepcluster_v1.py::test_"
V2 = "objectives/test_deepcluster_v2.py::test_"
SELA = "objectives/test_sela.py::test_"
KMEANS = "test_kmeans.py::test_"
LEARNER = "training/test_learner.py::test_"
LOOPS = "value_and_gradients_equal_the_loops"

FAULTS = [
    # --- k-means ------------------------------------------------------------------------------------------------------
    Fault(
        "k-means: distances of rows far from the origin, without their mean taken off",
        "kmeans.py",
        "    offset = torch.zeros_like(z[0]) if spherical else _mean(z)\n    generator",
        "    offset = torch.zeros_like(z[0])\n    generator",
        (f"{KMEANS}labels_are_the_nearest_centroids_far_from_the_origin_in_float32_too",),
    ),
    Fault(
        "k-means: the length of a centroid is forgotten in distances",
        "kmeans.py",
        "half = 0.5 * centroids.square().sum(dim=1)",
        "half = torch.zeros_like(centroids[:, 0])",
        (f"{KMEANS}it_is_lloyds_algorithm_in_loops[keep-False]",),
    ),
    Fault(
        "k-means: spherical centroids keep the length of their mean",
        "kmeans.py",
        "means = sums / torch.where(length > 0, length, 1)",
        "means = sums / sizes.clamp_min(1)[:, None]",
        (f"{KMEANS}published_labels_and_one_move_of_the_centroids_of_which_an_empty_one_stays",),
    ),
    Fault(
        "k-means: an empty cluster moves to the origin",
        "kmeans.py",
        "means, stays = sums / sizes.clamp_min(1)[:, None], sizes == 0",
        "means, stays = sums / sizes.clamp_min(1)[:, None], sizes < 0",
        (f"{KMEANS}an_empty_cluster_takes_half_of_another",),
    ),
    Fault(
        "k-means: the last start is kept, in place of the best",
        "kmeans.py",
        "if best is None or total < best[0]:",
        "if best is None or total > -1:",
        (f"{KMEANS}of_several_starts_the_best_is_kept",),
    ),
    Fault(
        "whitening: directions are not scaled",
        "kmeans.py",
        "largest.sign()[0] / torch.where(kept, variances, 1).sqrt()",
        "largest.sign()[0] + 0 * variances",
        (f"{KMEANS}whitened_rows_have_no_mean_and_the_identity_for_a_covariance",),
    ),
    # --- DeepCluster v2 -----------------------------------------------------------------------------------------------
    Fault(
        "deepcluster_v2: images without a label count as of the first cluster",
        "objectives/_clusters.py",
        "return torch.where(known, surprise, 0).sum() / known.sum().clamp_min(1)",
        "return surprise.sum() / known.sum().clamp_min(1)",
        (f"{V2}images_without_a_label_are_left_out_and_a_batch_of_nothing_else_moves_nothing",),
    ),
    Fault(
        "deepcluster_v2: a batch without a label gives no number",
        "objectives/_clusters.py",
        "known.sum().clamp_min(1)",
        "known.sum()",
        (f"{V2}images_without_a_label_are_left_out_and_a_batch_of_nothing_else_moves_nothing",),
        fast=True,
    ),
    Fault(
        "deepcluster_v2: all heads cluster the first crop",
        "objectives/deepcluster_v2.py",
        "self.bank[head % s.kept, ids],",
        "self.bank[0, ids],",
        (f"{V2}every_head_clusters_the_crop_whose_turn_it_is_and_labels_are_the_nearest_centroids",),
    ),
    Fault(
        "deepcluster_v2: every epoch begins with a look at all images, in place of the embeddings of the last",
        "objectives/deepcluster_v2.py",
        "if not bool(self.seen.any()):",
        "if True:",
        (
            f"{V2}the_first_bank_is_a_look_at_both_crops_in_training_and_the_next_epoch_needs_none",
            f"{V2}an_epochs_embeddings_are_clustered_before_the_next_and_of_images_left_out_those_of_before",
        ),
    ),
    Fault(
        "deepcluster_v2: the second crop's row of the bank is that of the first",
        "objectives/deepcluster_v2.py",
        "self.bank[view, listed] = u[order][first].to(self.bank.dtype)",
        "self.bank[view, listed] = views[0][order][first].to(self.bank.dtype)",
        (f"{V2}an_epochs_embeddings_are_clustered_before_the_next_and_of_images_left_out_those_of_before",),
    ),
    Fault(
        "deepcluster_v2: rows come into the bank in the order of the batch, under sorted ids",
        "objectives/deepcluster_v2.py",
        "u[order][first]",
        "u[first]",
        (f"{V2}an_epochs_embeddings_are_clustered_before_the_next_and_of_images_left_out_those_of_before",),
    ),
    Fault(
        "deepcluster_v2: centroids are drawn alike in every epoch",
        "objectives/deepcluster_v2.py",
        "epoch = 1 + int(self.epochs)",
        "epoch = 1",
        (f"{V2}an_epochs_embeddings_are_clustered_before_the_next_and_of_images_left_out_those_of_before",),
    ),
    # --- DeepCluster v1 -----------------------------------------------------------------------------------------------
    Fault(
        "deepcluster_v1: the top layer goes on with the labels of another clustering",
        "objectives/deepcluster_v1.py",
        "        self.weight.copy_(STD * torch.randn(self.weight.shape, generator=generator))\n",
        "        self.weight.add_(0 * torch.randn(self.weight.shape, generator=generator))\n",
        (f"{V1}the_top_layer_starts_anew_each_epoch_small_and_without_biases_and_says_so",),
    ),
    Fault(
        "deepcluster_v1: large clusters count more than small ones",
        "objectives/deepcluster_v1.py",
        "sizes.clamp_min(1) ** -self.section.balance",
        "sizes.clamp_min(1) ** 0",
        (f"{V1}it_is_in_expectation_what_drawing_images_uniformly_over_clusters_gives",),
    ),
    Fault(
        "deepcluster_v1: the top layer sees what the last ReLU would have taken away",
        "objectives/deepcluster_v1.py",
        "in_float64(z).relu() @",
        "in_float64(z) @",
        (f"{V1}only_what_the_last_relu_leaves_counts", f"{V1}{LOOPS}[1.0-healthy]"),
    ),
    Fault(
        "deepcluster_v1: clusters of embeddings that are not whitened",
        "objectives/deepcluster_v1.py",
        "directions(pca_whitened(z, s.whitened)),",
        "directions(z),",
        (f"{V1}labels_are_clusters_of_whitened_directions_drawn_anew_each_epoch",),
    ),
    Fault(
        "deepcluster_v1: labels lie in the order in which images were read, in place of by id",
        "objectives/deepcluster_v1.py",
        "        self.labels.fill_(-1)\n",
        "",
        (f"{V1}images_that_could_not_be_read_have_no_label_and_are_left_out",),
    ),
    # --- SeLa ---------------------------------------------------------------------------------------------------------
    Fault(
        "sela: labels are the most likely clusters, however many images these then have",
        "objectives/_equal_masses.py",
        "return equal_masses(logs, tolerance=tolerance).argmax(dim=1)",
        "return logs.argmax(dim=1)",
        (f"{SELA}published_assignment_and_labels",),
    ),
    Fault(
        "sela: probabilities are not taken to their power",
        "objectives/sela.py",
        "[s.sharpness * logits.log_softmax(dim=1)",
        "[logits.log_softmax(dim=1)",
        (f"{SELA}labels_are_those_of_the_probabilities_to_a_power_for_each_head",),
    ),
    Fault(
        "sela: updates come at equal distances",
        "objectives/sela.py",
        "self.section.updates * math.sqrt(progress)",
        "self.section.updates * progress",
        (f"{SELA}updates_come_at_the_squares_of_equal_shares_of_the_run",),
    ),
    Fault(
        "sela: a run that goes on makes an update again",
        "objectives/sela.py",
        "    module._known = None\n",
        "    return\n",
        (f"{SELA}a_state_that_is_loaded_says_how_many_updates_were_made",),
    ),
    Fault(
        "sela: all heads have the labels of the last",
        "objectives/sela.py",
        "self.labels[head, ids] = labels_of_equal_masses",
        "self.labels[:, ids] = labels_of_equal_masses",
        (f"{SELA}labels_are_those_of_the_probabilities_to_a_power_for_each_head",),
    ),
    # --- Looks at all images ------------------------------------------------------------------------------------------
    Fault(
        "looks: a look in training moves the running statistics",
        "training/looks.py",
        "            buffer.copy_(kept[name])\n",
        "            assert name in kept\n",
        (f"{LEARNER}networks_that_embed_all_images_as_in_training_use_the_statistics_of_batches_and_keep_theirs",),
    ),
    Fault(
        "looks: what a look renews goes on with the momentum of before",
        "training/learner.py",
        "            self.optimizer.state.pop(parameter, None)\n",
        "            assert parameter is not None\n",
        (f"{LEARNER}what_the_optimizer_remembers_of_parameters_that_a_look_renews_is_forgotten",),
    ),
    Fault(
        "looks: views of all images are those of the steps",
        "data/order.py",
        "return int(hashed((ALL_IMAGES,), np.array([seed]))[0])",
        "return seed",
        ("planning/test_plan.py::test_all_images_come_as_views_that_no_step_has_in_a_random_order[in_memory]",),
    ),
]
