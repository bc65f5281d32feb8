# Maximum-likelihood and REML reference fits: Rscript ml.R DATA_DIRECTORY [ml.json] [id-pattern]
here <- dirname(normalizePath(sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE))))
source(file.path(here, "common.R"))
args <- data_dir(); dir <- args[1]
out <- if (length(args) > 1) args[2] else file.path(here, "ml.json")

bin <- function(...) model(family = "binomial", link = "logit", ...)
poi <- function(...) model(family = "poisson", link = "log", ...)
kids <- list(children = "ifelse(livch == '0', 'false', 'true')")
helm2 <- list(children = "helmert", urban = "helmert")     # two levels: -1, +1
gt <- c("INDEX", "BROOD", "YEAR", "LOCATION")
ti <- function(...) bin(dataset = "titanic", engine = "glm", factors = "pclass", ...)
slp <- function(id, re, ...) model(id = id, dataset = "sleepstudy", engine = "lmer", factors = "Subject", formula = paste("Reaction ~ Days +", re), ...)
con <- function(id, f, ..., link = "logit") model(id = id, dataset = "contra", engine = "glmer", family = "binomial", link = link, formula = f, ...)
gtk <- function(id, f, ...) poi(id = id, dataset = "grouseticks", engine = "glmer", factors = gt, formula = f, ...)
mt <- function(id, f, ...) model(id = id, dataset = "mtcars", formula = f, ...)
gm1 <- "use ~ 1 + age + I(age^2) + urban + livch + (1|dist)"
gm2 <- "use ~ 1 + age * children + I(age^2) + urban + (1|dist)"
gm3 <- "use ~ 1 + age * children + I(age^2) + urban + (1|urban:dist)"
phase <- list(phase = "ifelse(Days < 5, 'a_early', 'b_late')")
phase3 <- list(phase = "ifelse(Days < 3, 'a', ifelse(Days < 7, 'b', 'c'))")

CASES <- list(
  # --- glm
  ti(id = "glm_titanic_sex", formula = "survived ~ sex"),
  ti(id = "glm_titanic_sex_age_pclass", formula = "survived ~ sex * age + pclass"),
  ti(id = "glm_titanic_sex_pclass_age", formula = "survived ~ sex * pclass + age"),
  modifyList(ti(id = "glm_titanic_probit", formula = "survived ~ sex + age"), list(link = "probit")),
  modifyList(ti(id = "glm_titanic_cloglog", formula = "survived ~ sex + age"), list(link = "cloglog")),
  modifyList(ti(id = "glm_titanic_cauchit", formula = "survived ~ sex + age"), list(link = "cauchit")),
  poi(id = "glm_grouseticks_year", dataset = "grouseticks", engine = "glm", factors = gt, formula = "TICKS ~ YEAR"),
  poi(id = "glm_grouseticks_offset", dataset = "grouseticks", engine = "glm", factors = gt, formula = "TICKS ~ YEAR + offset(log(HEIGHT))", offset = "log(HEIGHT)"),
  modifyList(poi(id = "glm_grouseticks_sqrt", dataset = "grouseticks", engine = "glm", factors = gt, formula = "TICKS ~ YEAR"), list(link = "sqrt")),
  bin(id = "glm_cbpp_cbind", dataset = "cbpp", engine = "glm", factors = c("herd", "period"), formula = "cbind(incidence, size - incidence) ~ period"),
  bin(id = "glm_cbpp_prop", dataset = "cbpp", engine = "glm", factors = c("herd", "period"), derive = list(prop = "incidence / size"), formula = "prop ~ period", weights = "size"),
  bin(id = "glm_cbpp_trials", dataset = "cbpp", engine = "glm", factors = c("herd", "period"), formula = "incidence ~ period", trials = "size", r_formula = "cbind(incidence, size - incidence) ~ period"),
  mt("glm_mtcars_gaussian_log", "mpg ~ wt + hp", engine = "glm", link = "log"),
  mt("glm_mtcars_gamma_log", "mpg ~ wt + hp", engine = "glm", family = "Gamma", link = "log"),
  mt("glm_mtcars_gamma_inverse", "mpg ~ wt + hp", engine = "glm", family = "Gamma", link = "inverse"),
  mt("glm_mtcars_invgauss_log", "mpg ~ wt + hp", engine = "glm", family = "inverse.gaussian", link = "log"),
  # --- lm
  mt("lm_mtcars_wt_hp", "mpg ~ wt*hp"),
  mt("lm_mtcars_cyl", "mpg ~ wt + cyl", factors = "cyl"),
  mt("lm_mtcars_cyl_sum", "mpg ~ wt * cyl", factors = "cyl", contrasts = list(cyl = "sum")),
  mt("lm_mtcars_cyl_helmert", "mpg ~ wt * cyl", factors = "cyl", contrasts = list(cyl = "helmert")),
  mt("lm_mtcars_cyl_poly", "mpg ~ wt * cyl", factors = "cyl", contrasts = list(cyl = "poly")),
  mt("lm_mtcars_cyl_ordered", "mpg ~ wt + cyl", ordered = "cyl"),
  mt("lm_mtcars_poly2", "mpg ~ poly(wt, 2)"),
  mt("lm_mtcars_I_log", "mpg ~ I(wt^2) + log(hp)"),
  mt("lm_mtcars_scale", "mpg ~ scale(wt) + scale(hp, scale = FALSE)"),
  mt("lm_mtcars_weights", "mpg ~ wt", weights = "hp"),
  mt("lm_mtcars_noint", "mpg ~ 0 + cyl + wt", factors = "cyl"),
  mt("lm_mtcars_logy", "log(mpg) ~ wt + factor(gear)"),
  mt("lm_mtcars_cyl_x_gear_nomain", "mpg ~ cyl:wt + wt", factors = "cyl"),
  model(id = "lm_penguins", dataset = "penguins", formula = "body_mass_g ~ species*sex"),
  model(id = "lm_advertising", dataset = "advertising", formula = "sales ~ (tv + radio + newspaper)^2"),
  model(id = "lm_credit", dataset = "credit", formula = "Balance ~ Income * Student + Ethnicity"),
  # --- lmer
  slp("lmer_sleepstudy_ml", "(Days|Subject)"),
  slp("lmer_sleepstudy_reml", "(Days|Subject)", reml = TRUE),
  slp("lmer_sleepstudy_dbar_ml", "(Days||Subject)"),
  slp("lmer_sleepstudy_dbar_reml", "(Days||Subject)", reml = TRUE),
  slp("lmer_sleepstudy_split_ml", "(1|Subject) + (0+Days|Subject)"),
  slp("lmer_sleepstudy_int_reml", "(1|Subject)", reml = TRUE),
  slp("lmer_sleepstudy_weights_ml", "(Days|Subject)", derive = list(w = "Days + 1"), weights = "w"),
  slp("lmer_sleepstudy_weights_reml", "(Days|Subject)", derive = list(w = "Days + 1"), weights = "w", reml = TRUE),
  model(id = "lmer_sleepstudy_phase_full_ml", dataset = "sleepstudy", engine = "lmer", factors = "Subject", derive = phase, formula = "Reaction ~ phase + (phase|Subject)"),
  model(id = "lmer_sleepstudy_phase_cell_ml", dataset = "sleepstudy", engine = "lmer", factors = "Subject", derive = phase, formula = "Reaction ~ phase + (0+phase|Subject)"),
  model(id = "lmer_sleepstudy_phase3_cell_reml", dataset = "sleepstudy", engine = "lmer", factors = "Subject", derive = phase3, formula = "Reaction ~ phase + (0+phase|Subject)", reml = TRUE),
  model(id = "lmer_dyestuff_ml", dataset = "dyestuff", engine = "lmer", formula = "Yield ~ 1 + (1|Batch)"),
  model(id = "lmer_dyestuff_reml", dataset = "dyestuff", engine = "lmer", formula = "Yield ~ 1 + (1|Batch)", reml = TRUE),
  model(id = "lmer_dyestuff2_ml", dataset = "dyestuff2", engine = "lmer", formula = "Yield ~ 1 + (1|Batch)"),
  model(id = "lmer_dyestuff2_reml", dataset = "dyestuff2", engine = "lmer", formula = "Yield ~ 1 + (1|Batch)", reml = TRUE),
  model(id = "lmer_penicillin_ml", dataset = "penicillin", engine = "lmer", formula = "diameter ~ 1 + (1|plate) + (1|sample)"),
  model(id = "lmer_penicillin_reml", dataset = "penicillin", engine = "lmer", formula = "diameter ~ 1 + (1|plate) + (1|sample)", reml = TRUE),
  model(id = "lmer_pastes_nested_ml", dataset = "pastes", engine = "lmer", formula = "strength ~ 1 + (1|batch/cask)"),
  model(id = "lmer_pastes_nested_reml", dataset = "pastes", engine = "lmer", formula = "strength ~ 1 + (1|batch/cask)", reml = TRUE),
  model(id = "lmer_pastes_explicit_ml", dataset = "pastes", engine = "lmer", formula = "strength ~ 1 + (1|sample) + (1|batch)"),
  model(id = "lmer_chickweight_ml", dataset = "chickweight", engine = "lmer", factors = c("Chick", "Diet"), formula = "weight ~ Time*Diet + (1 + Time|Chick)"),
  model(id = "lmer_chickweight_reml", dataset = "chickweight", engine = "lmer", factors = c("Chick", "Diet"), formula = "weight ~ Time*Diet + (1 + Time|Chick)", reml = TRUE),
  model(id = "lmer_gammas_roi_ml", dataset = "gammas", engine = "lmer", factors = "subject", rename = list(BOLD = "BOLD signal"), formula = "BOLD ~ ROI + (1|subject)"),
  model(id = "lmer_gammas_roi_slope_reml", dataset = "gammas", engine = "lmer", factors = "subject", rename = list(BOLD = "BOLD signal"), formula = "BOLD ~ ROI + (ROI|subject)", reml = TRUE),
  model(id = "lmer_sample_data_reml", dataset = "sample_data", engine = "lmer", factors = "Group", formula = "DV ~ IV1 + (1|Group)", reml = TRUE),
  model(id = "lmer_sample_data_ml", dataset = "sample_data", engine = "lmer", factors = "Group", formula = "DV ~ IV1 + (1|Group)"),
  model(id = "lmer_sample_data_slope_reml", dataset = "sample_data", engine = "lmer", factors = "Group", formula = "DV ~ IV1 + (IV1|Group)", reml = TRUE),
  model(id = "lmer_insteval_ml", dataset = "insteval", engine = "lmer", factors = c("s", "d", "dept", "service"), formula = "y ~ service + (1|s) + (1|d) + (1|dept)"),
  # --- glmer
  bin(id = "glmer_titanic_pclass", dataset = "titanic", engine = "glmer", factors = "pclass", formula = "survived ~ sex + (1|pclass)"),
  bin(id = "glmer_cbpp", dataset = "cbpp", engine = "glmer", factors = c("herd", "period"), formula = "cbind(incidence, size - incidence) ~ period + (1|herd)"),
  bin(id = "glmer_cbpp_agq9", dataset = "cbpp", engine = "glmer", nagq = 9, factors = c("herd", "period"), formula = "cbind(incidence, size - incidence) ~ period + (1|herd)"),
  bin(id = "glmer_cbpp_prop", dataset = "cbpp", engine = "glmer", factors = c("herd", "period"), derive = list(prop = "incidence / size"), formula = "prop ~ period + (1|herd)", weights = "size"),
  con("glmer_contra_gm1", gm1, contrasts = list(urban = "helmert")),
  con("glmer_contra_gm1_agq9", gm1, nagq = 9, contrasts = list(urban = "helmert")),
  con("glmer_contra_gm2", gm2, derive = kids, contrasts = helm2),
  con("glmer_contra_gm2_agq9", gm2, nagq = 9, derive = kids, contrasts = helm2),
  con("glmer_contra_gm3", gm3, derive = kids, contrasts = helm2),
  con("glmer_contra_gm3_agq9", gm3, nagq = 9, derive = kids, contrasts = helm2),
  con("glmer_contra_urban_slope", "use ~ 1 + age + I(age^2) + urban + livch + (urban|dist)"),
  con("glmer_contra_age_slope", "use ~ 1 + age10 + I(age10^2) + urban + livch + (1 + age10|dist)", derive = list(age10 = "age / 10")),
  con("glmer_contra_probit", gm1, link = "probit"),
  con("glmer_contra_cloglog", gm1, link = "cloglog"),
  con("glmer_contra_probit_agq9", gm1, link = "probit", nagq = 9),
  gtk("glmer_grouseticks_location", "TICKS ~ YEAR + (1|LOCATION)"),
  gtk("glmer_grouseticks_location_agq9", "TICKS ~ YEAR + (1|LOCATION)", nagq = 9),
  gtk("glmer_grouseticks_index", "TICKS ~ YEAR + (1|LOCATION) + (1|INDEX)", tol = 1e-14),
  gtk("glmer_grouseticks_year_slope", "TICKS ~ YEAR + (YEAR|LOCATION)"),
  gtk("glmer_grouseticks_year_cell", "TICKS ~ YEAR + (0 + YEAR|LOCATION)"),
  gtk("glmer_grouseticks_year_split", "TICKS ~ YEAR + (1|LOCATION) + (0 + YEAR|LOCATION)", identified = FALSE),
  gtk("glmer_grouseticks_elston", "TICKS ~ YEAR + cHEIGHT + (1|BROOD) + (1|INDEX) + (1|LOCATION)"),
  gtk("glmer_grouseticks_offset", "TICKS ~ YEAR + offset(log(HEIGHT)) + (1|LOCATION)", offset = "log(HEIGHT)"),
  bin(id = "glmer_verbagg", dataset = "verbagg", engine = "glmer", factors = "id", formula = "r2 ~ Anger + Gender + btype + situ + (1|id) + (1|item)")
)
if (length(args) > 2) CASES <- Filter(function(c) grepl(args[3], c$id), CASES)

varcorr <- function(m) {
  vc <- VarCorr(m); lab <- names(vc); cn <- attr(m@flist, "assign"); g <- names(m@flist)[cn]
  lapply(seq_along(vc), function(i) list(group = g[i], group_label = lab[i], terms = I(rownames(vc[[i]])),
    sd = vec(attr(vc[[i]], "stddev")), corr = rows(attr(vc[[i]], "correlation")), cov = rows(vc[[i]])))
}
ranefs <- function(m) {
  r <- ranef(m, condVar = TRUE); long <- as.data.frame(r)
  sapply(names(r), function(g) { x <- long[long$grpvar == g, ]; lv <- rownames(r[[g]]); co <- colnames(r[[g]])
    pick <- function(v) rows(sapply(co, function(k) { y <- x[x$term == k, ]; y[[v]][match(lv, y$grp)] }))
    if (length(lv) == 1) stop("one level")
    list(levels = I(lv), columns = I(co), modes = pick("condval"), condsd = pick("condsd")) }, simplify = FALSE)
}
quant <- function(x) vec(as.numeric(quantile(x)))
saturated <- function(m, case) {                # what lme4 leaves out of its nAGQ > 1 deviance
  y <- getME(m, "y"); w <- weights(m, type = "prior")
  if (case$family == "binomial") sum(dbinom(round(y * w), round(w), y, log = TRUE)) else sum(dpois(y, y, log = TRUE))
}
tmb <- function(case, d) {
  a <- list(formula = as.formula(if (is.null(case$r_formula)) case$formula else case$r_formula, env = globalenv()), data = d,
            family = family_of(case), control = glmmTMBControl(optCtrl = list(iter.max = 5000, eval.max = 5000, rel.tol = 1e-14, x.tol = 1e-12)))
  if (nzchar(case$weights)) a$weights <- d[[case$weights]]
  m <- suppressWarnings(do.call(glmmTMB, a)); o <- m$obj; p <- m$fit$par
  for (i in 1:3) { g <- as.numeric(o$gr(p)); H <- optimHess(p, o$fn, o$gr, control = list(ndeps = rep(1e-4, length(p))))
    q <- p - tryCatch(solve(H, g), error = function(e) 0 * g); if (is.finite(o$fn(q)) && o$fn(q) <= o$fn(p) + 1e-9) p <- q else break }
  v <- o$fn(p); m$fit$par <- p; m$fit$parfull <- o$env$last.par
  V <- tryCatch(solve(H), error = function(e) H * NA); b <- names(p) == "beta"
  list(logLik = -v, names = I(colnames(getME(m, "X"))), coef = vec(p[b]), se = vec(sqrt(diag(V))[b]), max_abs_grad = max(abs(o$gr(p))),
       varcorr = lapply(VarCorr(m)$cond, function(x) list(terms = I(rownames(x)), sd = vec(attr(x, "stddev")), corr = rows(attr(x, "correlation")))))
}

one <- function(case) {
  t0 <- proc.time()[[3]]; d <- prepare(dir, case); big <- case$dataset == "insteval"
  assign("v", NULL, envir = .last)
  m <- fit_case(case, d, quick = big); pol <- get("v", envir = .last)
  r <- describe(case, d); mixed <- case$engine %in% c("lmer", "glmer")
  b <- if (mixed) fixef(m) else coef(m)
  V <- as.matrix(vcov(m)); r$names <- I(names(b)); r$coef <- vec(b); r$se <- vec(sqrt(diag(V)))
  r$vcov <- rows(V)
  if (case$engine == "glmer") {
    Vc <- suppressWarnings(as.matrix(vcov(m, use.hessian = FALSE))); r$se_conditional <- vec(sqrt(diag(Vc))); r$vcov_conditional <- rows(Vc)
    r$se_deriv12 <- r$se
    if (all(pol$free)) {                           # deriv12 (lme4's vcov) carries noise up to 1e-4: use Richardson's Hessian
      V <- (if (r$identified) solve else MASS::ginv)(pol$hess / 2)   # ginv where some directions are flat
      k <- seq_along(pol$free) > length(getME(m, "theta")); V <- V[k, k, drop = FALSE]
      r$vcov <- rows(V); r$se <- vec(sqrt(diag(V))) }
  }
  r$stat <- vec(b / sqrt(diag(V)))
  r$logLik <- as.numeric(logLik(m)); r$df_model <- attr(logLik(m), "df"); r$AIC <- AIC(m); r$BIC <- BIC(m)
  r$nobs <- nobs(m); r$df_residual <- df.residual(m); r$sigma <- sigma(m)
  r$fitted_head <- vec(head(fitted(m), 5))
  if (!mixed) {
    r$deviance <- deviance(m); s <- summary(m); r$p <- vec(s$coefficients[, 4])
    if (case$engine == "glm") { r$null_deviance <- m$null.deviance; r$df_null <- m$df.null; r$dispersion <- s$dispersion
      r$pearson_chi2 <- sum(residuals(m, "pearson")^2); r$sigma <- sqrt(s$dispersion)
      r$deviance_residual_quantiles <- quant(residuals(m, "deviance")) }
    else { r$r_squared <- s$r.squared; r$adj_r_squared <- s$adj.r.squared; r$f_statistic <- vec(s$fstatistic) }
  } else {
    r$deviance <- -2 * r$logLik; if (case$engine == "glmer") r$deviance_conditional <- deviance(m)
    r$theta <- vec(getME(m, "theta")); r$singular <- isSingular(m, tol = 1e-6); r$max_abs_grad <- pol$grad
    r$varcorr <- varcorr(m); r$n_levels <- as.list(sapply(m@flist, nlevels))
    if (!big && nobs(m) < 7000) r$ranef <- ranefs(m)
    r$scaled_residual_quantiles <- quant(residuals(m, "pearson", scaled = TRUE))
    r$fixef_corr <- rows(cov2cor(V))
    if (case$engine == "lmer") {
      if (!big) { s <- coef(summary(as_lmerModLmerTest(m))); r$satterthwaite_df <- vec(s[, "df"]); r$t <- vec(s[, "t value"]); r$p <- vec(s[, "Pr(>|t|)"]) }
    } else {
      r$p <- vec(2 * pnorm(-abs(b / sqrt(diag(V)))))
      if (case$nagq > 1) r$logLik_full <- r$logLik + saturated(m, case)
    }
  }
  if (case$engine == "glmer" && case$nagq == 1) r$glmmTMB <- tmb(case, d)
  if (big) r[c("vcov", "fitted_head", "levels", "fixef_corr")] <- NULL
  cat(sprintf("%-36s %7.1fs logLik %.8f grad %s spread %s tmb %s se/ser %s\n", r$id, proc.time()[[3]] - t0, r$logLik,
      if (is.null(pol)) "" else format(pol$grad, digits = 2), if (is.null(pol)) "" else paste(format(pol$seen - pol$value, digits = 1), collapse = " "),
      if (is.null(r$glmmTMB)) "" else sprintf("%.8f", r$glmmTMB$logLik),
      if (is.null(r$se_deriv12)) "" else format(max(abs(r$se_deriv12 / r$se - 1)), digits = 2)), file = stderr())
  r
}
res <- mclapply(CASES, function(c) tryCatch(one(c), error = function(e) { message("FAILED ", c$id, ": ", conditionMessage(e)); NULL }),
                mc.cores = 2, mc.preschedule = FALSE)
bad <- vapply(res, is.null, NA)
if (any(bad)) message("failed: ", paste(vapply(CASES[bad], `[[`, "", "id"), collapse = " "))
write_json(list(versions = versions(), note = "deviance of a mixed model is -2 logLik (REML criterion under REML); lme4's logLik with nAGQ > 1 leaves out the saturated log-likelihood, logLik_full has it; lme4 uses Fisher weights in the Laplace determinant where canonical is false, glmmTMB the true Hessian; glmer: se, vcov, stat, p are from the Hessian of the deviance in (theta, beta) by Richardson extrapolation, se_deriv12 is lme4's own vcov(), a noisier difference (to 1e-4), se_conditional is vcov(use.hessian = FALSE); lme4's log-determinant is from the weights before PIRLS's last step, so its Laplace logLik is good to 1e-6 only on grouseticks: glmmTMB's is better; identified = false: flat directions, only logLik and fixed effects are determined", cases = res[!bad]), out)
