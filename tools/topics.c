/* topics.c - calomu help mi, folds, features, energies, files: what numbers and files mean */
#include "calomu_tool.h"

#include <string.h>

static const char topic_mi[] =
    "How energies are judged: by calomu evaluate, and by mi in the log of a training\n"
    "(Secs. 4.1 and 4.2 of the paper). E is the true energy of a muon.\n"
    "\n"
    "Debiasing       Networks shrink energies towards the middle. The mean\n"
    "                prediction in 39 bins of E from 100 to 4000 GeV (--fit-bins,\n"
    "                --range) is fitted by a straight line, and each prediction\n"
    "                replaced by the energy at which the line reaches it. Fit the\n"
    "                line on muons that chose the model (--fit VALID.csv), not on\n"
    "                those of the test.\n"
    "Resolution      of the calorimeter in a bin of E, as a share of E:\n"
    "                    calo = sqrt((median - E)^2 + c68^2) / E     (Eq. 4)\n"
    "                median: of the debiased predictions; c68: half the distance\n"
    "                between their 15.865% and 84.135% quantiles, the sigma of a\n"
    "                normal distribution; E: the median true energy of the bin.\n"
    "                Bins: 20 from 100 to 4000 GeV (--bins, --range), or each energy\n"
    "                by itself where there are few (--points), as in the paper's\n"
    "                test at 11 energies.\n"
    "Tracker         an assumed one beside the calorimeter: track = 20% x E/TeV\n"
    "                (--tracker); it is good where the calorimeter is not, below 1\n"
    "                TeV.\n"
    "Combination     the average of both, weighted by 1/resolution^2:\n"
    "                    comb = 1 / sqrt(1/calo^2 + 1/track^2)\n"
    "                It is never worse than the better of the two.\n"
    "Mean improvement (MI)\n"
    "                the mean over all bins of track - comb, in percent points: what\n"
    "                the calorimeter adds to the tracker. 0: nothing; higher is\n"
    "                better. The paper: 22.1 at the 11 energies. A bin needs 2\n"
    "                muons.\n"
    "Worst combined resolution\n"
    "                the largest comb of all bins, in percent; lower is better. The\n"
    "                paper: 29.5%.\n"
    "Errors (+-)     standard deviations over 200 resamplings (--errors): the muons\n"
    "                of each bin are drawn again, with replacement, and everything\n"
    "                is computed anew, the line too. They are of these muons alone:\n"
    "                another seed of a training moves MI as well, by about 0.3\n"
    "                points.\n"
    "\n"
    "Read MI with the table: predictions that saturate at high energies have a small\n"
    "spread there and are rewarded for it; the bias shows it.\n";

static const char topic_folds[] =
    "How calomu train divides the muons of a file (Secs. 3.2.1 and 3.2.4 of the\n"
    "paper).\n"
    "\n"
    "Folds           --folds F cuts the file into F stretches of n/F muons, rounded\n"
    "                down (default 36, as in the paper). Up to F - 1 muons at the\n"
    "                end are left out. Folds should be alike: a file in order of\n"
    "                energy, or of two samples one behind the other, must be\n"
    "                shuffled before it is cut: --shuffle.\n"
    "Hold-out        fold 0 is not looked at in training: it compares models.\n"
    "                --holdout no trains on it too, where other muons do that.\n"
    "Monitored fold  fold K + 1 of member K (--member K): not trained on. Its\n"
    "                validation loss chooses the state that is kept, halves the\n"
    "                learning rate and ends the training. Its MI is in the log, but\n"
    "                is no test: these muons chose the model. --validation FILE has\n"
    "                other muons monitored, and trains on this fold too.\n"
    "Training folds  all others: 34 of 36. In each epoch they come in a new order,\n"
    "                and so do the muons in each. Batches (--batch) never cross\n"
    "                folds, and what is left of a fold after its last whole batch is\n"
    "                passed over in that epoch. With few muons take fewer folds and\n"
    "                smaller batches: each fold must hold a batch.\n"
    "--unique        member K trains on 7 folds that no earlier member has: five\n"
    "                trainings on a fifth of the muons each (unique-fold training).\n"
    "Ensemble        --members N trains N networks, which monitor folds 1 to N.\n"
    "                predict takes their mean, weighted by 1/validation loss.\n"
    "\n"
    "Example: 220 muons, --folds 4 --holdout no --batch 16. Folds of 55; fold 1 is\n"
    "monitored; folds 0, 2 and 3 have 3 batches each: 9 updates an epoch.\n";

static const char topic_energies[] =
    "What calomu train takes for granted of the muons, and what it looks at before\n"
    "it starts.\n"
    "\n"
    "Energies        The loss bins (--loss-range), the weights of Eq. (3)\n"
    "                (--weight-centre, --weight-low, --weight-high) and the range of\n"
    "                the MI (--range) are the paper's, for muons of 50 to 8000 GeV.\n"
    "                --energy-range LOW,HIGH moves and stretches them together;\n"
    "                auto: to the energies of the muons used. Single options go\n"
    "                before it.\n"
    "Calorimeter     cells and network follow from the data file: --geometry at\n"
    "                import or simulate.\n"
    "Checks          train ends with code 3 and names the option where\n"
    "                - the monitored fold's energies are distributed otherwise than\n"
    "                  the other folds' (Kolmogorov-Smirnov, p < 1e-6): --shuffle;\n"
    "                - more than a fifth of the muons (--outside) lies outside of\n"
    "                  bins or weights; where fewer are a notice says how many;\n"
    "                - four of five bins are empty;\n"
    "                - hits are a thousand times too large or small.\n";

static const char topic_files[] =
    "What calomu writes, and what a killed run leaves.\n"
    "\n"
    "Outputs         No output is an input or another output of its command, under\n"
    "                any name or link. Only features and perturb may replace their\n"
    "                input.\n"
    "Locks           While a file is written, .NAME.calomu-lock lies beside it. Of\n"
    "                two commands with one output the second is refused (code 4).\n"
    "Killed runs     Lock and half-written file go with the next run of the same\n"
    "                output: at once on the same machine; on a shared folder, where\n"
    "                another machine's run may live, the lock counts after 90 s\n"
    "                without a sign of life.\n"
    "Signals         INT, TERM, HUP, USR1, USR2 and XCPU end a run. Those that the\n"
    "                parent ignores, as nohup does, stay ignored. train writes a\n"
    "                checkpoint, simulate leaves the muons that are complete: code\n"
    "                85. train --resume goes on to the same bytes, after a kill -9\n"
    "                too, and does nothing where the training has ended.\n"
    "Kinds           .cmu: muons; .safetensors: models and checkpoints, which\n"
    "                PyTorch reads. calomu info describes and verifies each.\n";

/* ---------------------------------------------------------------- features */

typedef struct topic_feature {
    const char *unit, *text;
} topic_feature;

static const topic_feature topic_features[CALOMU_FEATURES] = {
    { "GeV", "energy in cells above 0.1 GeV" },
    { "mm", "|sum E (dx, dy)| / sum E: imbalance around the muon" },
    { "mm", "the same over cells above 0.1 GeV" },
    { "mm^2", "sum E (dx^2 + dy^2) / sum E: second moment" },
    { "mm^2", "the same over cells with z below 400 mm" },
    { "mm^2", "the same, z from 400 mm" },
    { "mm^2", "the same, z from 800 mm" },
    { "mm^2", "the same, z from 1200 mm" },
    { "mm^2", "the same, z from 1600 mm on" },
    { "", "clusters of type 1" },
    { "cells", "size of the largest of them" },
    { "GeV", "energy of the one with most energy" },
    { "cells", "extent of the longest along x: last - first" },
    { "cells", "the same along y" },
    { "cells", "the same along z" },
    { "GeV", "second highest energy of a box in no cluster" },
    { "cells", "mean size of clusters of type 1" },
    { "", "clusters of type 2" },
    { "cells", "size of the largest of them" },
    { "GeV", "energy of the one with most energy" },
    { "GeV", "V19 / V18: highest energy / largest size" },
    { "cells", "mean size of clusters of type 2" },
    { "mm", "sum E dx / sum E: first moment along x" },
    { "mm", "sum E dy / sum E: first moment along y" },
    { "GeV", "momentum from the bend in the field, at most 10 TeV" },
    { "GeV", "highest energy of a box in no cluster" },
    { "GeV", "energy in cells below 0.01 GeV" },
    { "GeV", "energy in cells from 0.01 to 0.1 GeV" }
};

static void topic_print_features(void)
{
    int i;
    printf("The 28 high-level features of a muon (appendix 6 of the paper), as calomu\n"
           "features computes them by default (--convention text) and a hybrid network\n"
           "takes them.\n"
           "\n    name             unit  what\n");
    for (i = 0; i < CALOMU_FEATURES; i++)
        printf("V%-2d %-16s %-5s %s\n", i, calomu_feature_name(i), topic_features[i].unit,
               topic_features[i].text);
    printf("\n"
           "E: energy of a cell. dx, dy: from the axis of the cell that the muon enters to\n"
           "that of the cell. z: of the cell's centre, from the front face. A ratio over\n"
           "nothing is 0, and so is what needs clusters where there are none.\n"
           "Clusters grow from a seed, the highest free cell above 0.1 GeV, over the six\n"
           "neighbours above --grow (0.1 GeV): type 1 from seeds in the muon's column, then\n"
           "type 2 from seeds anywhere. Boxes: 3 x 3 x 3 cells.\n"
           "V24 = 0.3 B R in GeV, T and m; R: the circle through the mean points (x, z) of\n"
           "both halves of the layers, where a cell counts exp(-|y|/50 mm), y from the row\n"
           "with most energy.\n"
           "--convention authors, for the authors' public files, differs in V1 to V8, V15,\n"
           "V19, V20 and V22 to V27 (tools/study.md: where we differ from the text). The\n"
           "names are those of these files.\n");
}

/* ---------------------------------------------------------------- the table */

static void topic_print_mi(void) { (void)fputs(topic_mi, stdout); }

static void topic_print_folds(void) { (void)fputs(topic_folds, stdout); }

static void topic_print_energies(void) { (void)fputs(topic_energies, stdout); }

static void topic_print_files(void) { (void)fputs(topic_files, stdout); }

static const tool_topic topics[] = {
    { "mi", topic_print_mi, "debiasing, resolution, mean improvement and their errors" },
    { "folds", topic_print_folds, "which muons train, which monitor, which are held out" },
    { "features", topic_print_features, "the 28 high-level features: names, units, meaning" },
    { "energies", topic_print_energies, "muons of other energies; what train looks at first" },
    { "files", topic_print_files, "outputs, locks, signals, what a killed run leaves" }
};
enum { TOPICS = sizeof topics / sizeof topics[0] };

const tool_topic *tool_topic_at(size_t i)
{
    return i < TOPICS ? &topics[i] : NULL;
}
