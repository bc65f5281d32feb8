# Reference values of emmeans: Rscript emmeans.R DATA_DIRECTORY [emmeans.json]
here <- dirname(normalizePath(sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE))))
source(file.path(here, "common.R"))
emm_options(lmer.df = "asymptotic", lmerTest.limit = 1e4, msg.interaction = FALSE)
args <- data_dir(); dir <- args[1]
out <- if (length(args) > 1) args[2] else file.path(here, "emmeans.json")

gt <- c("INDEX", "BROOD", "YEAR", "LOCATION")
tit <- function(...) model(dataset = "titanic", family = "binomial", link = "logit", engine = "glm", factors = "pclass", ...)
chick <- function(reml) model(id = if (reml) "lmer_chickweight_reml" else "lmer_chickweight_ml", dataset = "chickweight", engine = "lmer",
  factors = c("Chick", "Diet"), formula = "weight ~ Time*Diet + (1 + Time|Chick)", reml = reml)
MODELS <- list(
  tit(id = "glm_titanic_sex", formula = "survived ~ sex"),
  tit(id = "glm_titanic_sex_pclass_age", formula = "survived ~ sex * pclass + age"),
  tit(id = "glm_titanic_sex_age_pclass", formula = "survived ~ sex * age + pclass"),
  modifyList(tit(id = "glm_titanic_probit", formula = "survived ~ sex + age"), list(link = "probit")),
  modifyList(tit(id = "glm_titanic_cloglog", formula = "survived ~ sex + age"), list(link = "cloglog")),
  modifyList(tit(id = "glmer_titanic_pclass", formula = "survived ~ sex + (1|pclass)"), list(engine = "glmer")),
  model(id = "glmer_grouseticks_location", dataset = "grouseticks", family = "poisson", link = "log", engine = "glmer", factors = gt,
        formula = "TICKS ~ YEAR + (1|LOCATION)"),
  model(id = "glm_grouseticks_offset", dataset = "grouseticks", family = "poisson", link = "log", engine = "glm", factors = gt,
        formula = "TICKS ~ YEAR + offset(log(HEIGHT))", offset = "log(HEIGHT)"),
  model(id = "lm_penguins", dataset = "penguins", formula = "body_mass_g ~ species*sex"),
  model(id = "lm_mtcars_poly2", dataset = "mtcars", formula = "mpg ~ poly(wt, 2)"),
  model(id = "lm_mtcars_I_log", dataset = "mtcars", formula = "mpg ~ I(wt^2) + log(hp)"),
  model(id = "lm_mtcars_logy", dataset = "mtcars", formula = "log(mpg) ~ wt + factor(gear)"),
  model(id = "lm_mtcars_cyl_sum", dataset = "mtcars", formula = "mpg ~ wt * cyl", factors = "cyl", contrasts = list(cyl = "sum")),
  chick(TRUE), chick(FALSE))
names(MODELS) <- vapply(MODELS, `[[`, "", "id")

# one call: specs, by, at, type, weights, contrasts (name of a contrast family, or list of coefficient vectors), adjust, df ("" or lmer.df), level
ask <- function(model, specs, by = character(), at = NULL, type = "link", contrasts = "", adjust = "", weights = "equal", lmer_df = "",
                level = 0.95, interaction = FALSE, trend = "", joint = FALSE)
  as.list(environment())
CALLS <- list(
  ask("glm_titanic_sex", "sex", type = "response"), ask("glm_titanic_sex", "sex"),
  ask("glm_titanic_sex", "sex", type = "response", contrasts = list(female_minus_male = c(-1, 1))),
  ask("glm_titanic_sex", "sex", contrasts = list(female_minus_male = c(-1, 1))),
  ask("glm_titanic_sex", "sex", type = "response", contrasts = "pairwise"),
  ask("glm_titanic_sex", "sex", type = "response", contrasts = "revpairwise"),
  ask("glm_titanic_sex", "sex", type = "response", level = 0.9),
  ask("glm_titanic_sex", "sex", type = "response", adjust = "sidak"), ask("glm_titanic_sex", "sex", adjust = "sidak"),
  ask("glm_titanic_sex", "sex", type = "response", adjust = "bonferroni"), ask("glm_titanic_sex_pclass_age", "pclass", adjust = "tukey"),
  ask("glmer_titanic_pclass", "sex", type = "response", adjust = "sidak"), ask("glmer_grouseticks_location", "YEAR", type = "response", adjust = "sidak"),
  # interaction, averaging, by, at
  ask("glm_titanic_sex_pclass_age", "sex", type = "response"), ask("glm_titanic_sex_pclass_age", "sex"),
  ask("glm_titanic_sex_pclass_age", "pclass", type = "response"),
  ask("glm_titanic_sex_pclass_age", "pclass", type = "response", weights = "proportional"),
  ask("glm_titanic_sex_pclass_age", "sex", type = "response", weights = "proportional"),
  ask("glm_titanic_sex_pclass_age", "sex", type = "response", weights = "cells"),
  ask("glm_titanic_sex_pclass_age", "sex", type = "response", weights = "outer"),
  ask("glm_titanic_sex_pclass_age", c("sex", "pclass"), type = "response"),
  ask("glm_titanic_sex_pclass_age", "sex", by = "pclass", type = "response"),
  ask("glm_titanic_sex_pclass_age", "sex", by = "pclass", type = "response", contrasts = "pairwise"),
  ask("glm_titanic_sex_pclass_age", "pclass", by = "sex", type = "response", contrasts = "pairwise"),
  ask("glm_titanic_sex_pclass_age", "pclass", by = "sex", contrasts = "pairwise"),
  ask("glm_titanic_sex_pclass_age", "pclass", by = "sex", contrasts = "pairwise", adjust = "bonferroni"),
  ask("glm_titanic_sex_pclass_age", "pclass", by = "sex", contrasts = "pairwise", adjust = "holm"),
  ask("glm_titanic_sex_pclass_age", "pclass", by = "sex", contrasts = "pairwise", adjust = "sidak"),
  ask("glm_titanic_sex_pclass_age", "pclass", by = "sex", contrasts = "pairwise", adjust = "none"),
  ask("glm_titanic_sex_pclass_age", "pclass", by = "sex", contrasts = "pairwise", adjust = "fdr"),
  ask("glm_titanic_sex_pclass_age", "pclass", by = "sex", contrasts = "pairwise", adjust = "scheffe"),
  ask("glm_titanic_sex_pclass_age", "pclass", by = "sex", contrasts = "trt.vs.ctrl", adjust = "sidak"),
  ask("glm_titanic_sex_pclass_age", "pclass", contrasts = "trt.vs.ctrl"),
  ask("glm_titanic_sex_pclass_age", "pclass", contrasts = "poly"),
  ask("glm_titanic_sex_pclass_age", "pclass", contrasts = "consec"),
  ask("glm_titanic_sex_pclass_age", "pclass", contrasts = "eff"),
  ask("glm_titanic_sex_pclass_age", "pclass", contrasts = "del.eff"),
  ask("glm_titanic_sex_pclass_age", "pclass", contrasts = "mean_chg"),
  ask("glm_titanic_sex_pclass_age", "pclass", contrasts = list(first_vs_rest = c(1, -0.5, -0.5), second_vs_third = c(0, 1, -1)), type = "response"),
  ask("glm_titanic_sex_pclass_age", c("sex", "pclass"), type = "response", contrasts = "pairwise"),
  ask("glm_titanic_sex_pclass_age", c("sex", "pclass"), contrasts = "pairwise", interaction = TRUE),
  ask("glm_titanic_sex_pclass_age", "sex", by = "age", at = list(age = c(10, 30, 60)), type = "response"),
  ask("glm_titanic_sex_pclass_age", c("sex", "age"), at = list(age = c(10, 30, 60)), type = "response"),
  ask("glm_titanic_sex_age_pclass", "sex", by = "age", at = list(age = c(10, 30, 60)), type = "response", contrasts = "pairwise"),
  ask("glm_titanic_sex_age_pclass", "sex", by = "age", at = list(age = c(10, 30, 60)), contrasts = "pairwise"),
  ask("glm_titanic_sex_age_pclass", "sex", trend = "age"),
  ask("glm_titanic_sex_age_pclass", "sex", trend = "age", contrasts = "pairwise"),
  ask("glm_titanic_sex_pclass_age", character(), joint = TRUE),
  # other links
  ask("glm_titanic_probit", "sex", type = "response"), ask("glm_titanic_probit", "sex"),
  ask("glm_titanic_probit", "sex", type = "response", contrasts = "pairwise"),
  ask("glm_titanic_cloglog", "sex", type = "response"), ask("glm_titanic_cloglog", "sex", type = "response", contrasts = "pairwise"),
  # mixed, generalised
  ask("glmer_titanic_pclass", "sex", type = "response"), ask("glmer_titanic_pclass", "sex"),
  ask("glmer_titanic_pclass", "sex", type = "response", contrasts = "pairwise"),
  ask("glmer_grouseticks_location", "YEAR", type = "response"), ask("glmer_grouseticks_location", "YEAR"),
  ask("glmer_grouseticks_location", "YEAR", type = "response", contrasts = "pairwise"),
  ask("glmer_grouseticks_location", "YEAR", contrasts = "pairwise"),
  ask("glmer_grouseticks_location", "YEAR", type = "response", contrasts = "pairwise", adjust = "tukey"),
  ask("glmer_grouseticks_location", "YEAR", type = "response", contrasts = "pairwise", adjust = "holm"),
  ask("glm_grouseticks_offset", "YEAR", type = "response"), ask("glm_grouseticks_offset", "YEAR", type = "response", contrasts = "pairwise"),
  # linear
  ask("lm_penguins", "species"), ask("lm_penguins", "species", contrasts = "pairwise"),
  ask("lm_penguins", "species", weights = "proportional"), ask("lm_penguins", "species", weights = "cells"),
  ask("lm_penguins", c("species", "sex")), ask("lm_penguins", c("species", "sex"), contrasts = "pairwise"),
  ask("lm_penguins", "species", by = "sex", contrasts = "pairwise"), ask("lm_penguins", "sex", by = "species", contrasts = "pairwise"),
  ask("lm_penguins", "species", by = "sex", contrasts = "pairwise", adjust = "sidak"),
  ask("lm_penguins", "species", by = "sex", contrasts = "pairwise", adjust = "bonferroni"),
  ask("lm_penguins", "species", by = "sex", contrasts = "pairwise", adjust = "holm"),
  ask("lm_penguins", "species", by = "sex", contrasts = "pairwise", adjust = "none"),
  ask("lm_penguins", "species", by = "sex", contrasts = "pairwise", adjust = "scheffe"),
  ask("lm_penguins", c("species", "sex"), contrasts = "pairwise", interaction = TRUE),
  ask("lm_penguins", character(), joint = TRUE), ask("lm_penguins", character(), by = "sex", joint = TRUE),
  ask("lm_mtcars_poly2", "wt", at = list(wt = c(2, 3, 4))), ask("lm_mtcars_poly2", "wt", at = list(wt = c(2, 3, 4)), contrasts = "pairwise"),
  ask("lm_mtcars_I_log", "wt", at = list(wt = c(2, 3, 4), hp = 110)), ask("lm_mtcars_I_log", "wt", at = list(wt = c(2, 3, 4))),
  ask("lm_mtcars_logy", "gear"), ask("lm_mtcars_logy", "gear", type = "response"), ask("lm_mtcars_logy", "gear", type = "response", contrasts = "pairwise"),
  ask("lm_mtcars_cyl_sum", "cyl"), ask("lm_mtcars_cyl_sum", "cyl", contrasts = "pairwise"),
  ask("lm_mtcars_cyl_sum", "cyl", trend = "wt"), ask("lm_mtcars_cyl_sum", "cyl", trend = "wt", contrasts = "pairwise"))
for (m in c("lmer_chickweight_reml", "lmer_chickweight_ml")) for (k in c("asymptotic", "satterthwaite", "kenward-roger")) {
  if (k == "kenward-roger" && m == "lmer_chickweight_ml") next
  CALLS <- c(CALLS, list(
    ask(m, "Diet", lmer_df = k), ask(m, "Diet", by = "Time", at = list(Time = c(0, 10, 21)), lmer_df = k),
    ask(m, "Diet", by = "Time", at = list(Time = c(0, 10, 21)), contrasts = "pairwise", lmer_df = k),
    ask(m, "Diet", contrasts = "trt.vs.ctrl", adjust = "holm", lmer_df = k),
    ask(m, "Diet", trend = "Time", lmer_df = k), ask(m, "Diet", trend = "Time", contrasts = "pairwise", lmer_df = k)))
}

FITS <- mclapply(MODELS, function(c) { d <- prepare(dir, c)
  m <- fit_case(c, d); V <- NULL
  if (c$engine == "glmer") {                     # deriv12's Hessian is noisy (1e-4): hand emmeans the Richardson one
    pol <- get("v", envir = .last); k <- seq_along(pol$free) > length(getME(m, "theta"))
    V <- solve(pol$hess / 2)[k, k, drop = FALSE]; dimnames(V) <- list(names(fixef(m)), names(fixef(m))) }
  list(d = d, m = m, V = V) }, mc.cores = 1)
table_of <- function(x) {
  co <- attr(x, "names"); fac <- vapply(x, function(v) is.factor(v) || is.character(v), NA)
  list(nrow = nrow(x), columns = sapply(names(x), function(n) { v <- x[[n]]; if (is.factor(v) || is.character(v)) I(as.character(v)) else I(as.numeric(v)) }, simplify = FALSE))
}
run_call <- function(i) {
  a <- CALLS[[i]]; fit <- FITS[[a$model]]; m <- fit$m; e <- list(object = m)
  if (length(a$by)) e$by <- a$by
  if (length(a$at)) e$at <- a$at
  if (a$weights != "equal") e$weights <- a$weights
  extra <- if (nzchar(a$lmer_df)) list(lmer.df = a$lmer_df) else list()
  if (!is.null(fit$V)) extra$vcov. <- fit$V
  pred <- if (a$type == "response") list(type = "response") else list()
  txt <- c()
  if (a$joint) {
    x <- do.call(joint_tests, c(list(m), if (length(a$by)) list(by = a$by)))
    x <- as.data.frame(x); names(x)[names(x) == "model term"] <- "term"
    if (is.factor(x[[1]]) || is.character(x[[1]])) x[[1]] <- trimws(as.character(x[[1]]))
    res <- list(default = table_of(x))
  } else {
    g <- if (nzchar(a$trend)) do.call(emtrends, c(list(m, specs = a$specs, var = a$trend), if (length(a$by)) list(by = a$by), if (length(a$at)) list(at = a$at), extra))
         else do.call(emmeans, c(e, list(specs = a$specs), extra))
    isc <- !identical(a$contrasts, "")
    if (isc) {
      g <- if (a$interaction) contrast(g, interaction = a$contrasts) else
           if (is.character(a$contrasts)) contrast(g, a$contrasts) else contrast(g, a$contrasts)
    }
    su <- function(infer) do.call(summary, c(list(g), if (!is.null(infer)) list(infer = infer), pred, list(level = a$level), if (nzchar(a$adjust)) list(adjust = a$adjust)))
    d0 <- su(NULL); d1 <- su(c(TRUE, TRUE)); txt <- attr(d1, "mesg")
    res <- list(default = table_of(as.data.frame(d0)), full = table_of(as.data.frame(d1)),
                estimate_name = attr(d1, "estName"), clnames = I(as.character(attr(d1, "clNames"))))
    if (!isc && !nzchar(a$trend)) { rg <- g@levels; res$grid_levels <- lapply(rg, function(v) I(v)) }
    res$linfct <- rows(g@linfct)
  }
  cs <- a$contrasts; if (is.list(cs)) cs <- lapply(cs, I)
  c(list(id = sprintf("%s_%02d", a$model, i), model = describe(MODELS[[a$model]], fit$d), specs = I(a$specs), by = I(a$by),
         at = named(lapply(a$at, I)), type = a$type, weights = a$weights, contrasts = cs, interaction = a$interaction, trend = a$trend,
         joint = a$joint, adjust = a$adjust, level = a$level, lmer_df = a$lmer_df, messages = I(as.character(txt))), res)
}
res <- lapply(seq_along(CALLS), function(i) tryCatch(run_call(i), error = function(e) { message("FAILED ", i, " ", CALLS[[i]]$model, ": ", conditionMessage(e)); NULL }))
res <- Filter(Negate(is.null), res)
write_json(list(versions = versions(), note = "default: columns as emmeans prints them (means: intervals, contrasts: tests); full: infer = c(TRUE, TRUE); infinities are written as strings, df Inf means asymptotic; linfct is over the coefficients in the order of the fit; adjust empty means the default of emmeans (none for means, tukey for pairwise, holm etc. as listed in messages); glmer standard errors from the Richardson Hessian as in ml.json", cases = res), out)
message(length(res), " of ", length(CALLS), " calls")
