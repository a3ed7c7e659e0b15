# The stack, in the order in which data flows: bucket -> queues -> submitter -> Datadog. generator.tf
# writes to the bucket on schedule, buckets.tf adds existing ones, policies.tf says who may do what,
# alarms.tf and observability.tf watch it all.

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

data "aws_region" "current" {}

locals {
  zip_folder = coalesce(var.zip_folder, path.module)

  account   = data.aws_caller_identity.current.account_id
  partition = data.aws_partition.current.partition
  region    = data.aws_region.current.id            # .name warns in provider 6, and provider 5 has no .region
  in_vpc    = length(var.subnet_ids) > 0 ? [1] : [] # a block for each function, or none
}

# ---------------------------------------------------------------------------------------
# Bucket: stats files on their way
# ---------------------------------------------------------------------------------------

locals {
  # A bucket's name is unique among all accounts. It has 24 + 1 + 12 + 1 + 15 = 53 of at most 63 characters.
  bucket_name  = "${var.name}-${local.account}-${local.region}"
  bucket_count = var.create_bucket ? 1 : 0

  # Every bucket to take files from, with its prefix.
  prefixes     = merge(var.create_bucket ? { (local.bucket_name) = var.stats_prefix } : {}, { for name, bucket in local.buckets : name => bucket.prefix })
  first_bucket = var.create_bucket ? local.bucket_name : keys(local.buckets)[0]
}

# 1.0 had these without an index. Terraform moves them to [0] on its own.
resource "aws_s3_bucket" "stats" {
  count = local.bucket_count

  bucket        = local.bucket_name
  force_destroy = var.force_destroy
  tags          = var.tags
}

resource "aws_s3_bucket_public_access_block" "stats" {
  count = local.bucket_count

  bucket = aws_s3_bucket.stats[0].id

  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "stats" {
  count = local.bucket_count

  bucket = aws_s3_bucket.stats[0].id

  rule {
    object_ownership = "BucketOwnerEnforced" # the submitter may read files that another account wrote
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "stats" {
  count = local.bucket_count

  bucket = aws_s3_bucket.stats[0].id

  rule {
    bucket_key_enabled = var.kms_key_arn == null ? null : true # otherwise each file is a request to KMS

    apply_server_side_encryption_by_default {
      sse_algorithm     = var.kms_key_arn == null ? "AES256" : "aws:kms"
      kms_master_key_id = var.kms_key_arn
    }
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "stats" {
  count = local.bucket_count

  bucket = aws_s3_bucket.stats[0].id

  rule {
    id     = "files"
    status = "Enabled"

    filter {}

    expiration {
      days = var.file_retention_days
    }
  }

  rule {
    id     = "incomplete-uploads"
    status = "Enabled"

    filter {}

    abort_incomplete_multipart_upload {
      days_after_initiation = 1
    }
  }
}

resource "aws_s3_bucket_policy" "stats" {
  count = local.bucket_count

  bucket = aws_s3_bucket.stats[0].id
  policy = data.aws_iam_policy_document.tls_only["bucket"].json

  depends_on = [aws_s3_bucket_public_access_block.stats] # S3 refuses the two at the same time
}

# A bucket has one notification configuration: another resource of this type would overwrite it.
resource "aws_s3_bucket_notification" "stats" {
  count = local.bucket_count

  bucket = aws_s3_bucket.stats[0].id

  queue {
    id            = "${var.name}-stats"
    queue_arn     = aws_sqs_queue.stats.arn
    events        = ["s3:ObjectCreated:*"]
    filter_prefix = var.stats_prefix
  }

  # S3 tests the queue before it accepts the configuration, and a submitter with another prefix would
  # ignore the files.
  depends_on = [aws_sqs_queue_policy.stats, aws_lambda_function.metric_submit]
}

# ---------------------------------------------------------------------------------------
# Queues: files to submit, what failed for too long, what was refused
# ---------------------------------------------------------------------------------------

locals {
  submit_timeout = 30 # seconds
  # AWS: at least 6 x the function's timeout + the window. try() leaves the sum wholly unknown to
  # `validate`: a provider without refinements of unknown values fails on one that is half known.
  visibility_timeout = try(6 * local.submit_timeout + var.batch_window)

  datadog_window = max(3600, var.max_age_seconds) # seconds; Datadog drops older points
  # Retry a file as long as Datadog would take it. AWS wants at least 5 tries; SQS allows at most 1000.
  max_receive_count = min(1000, max(5, ceil(local.datadog_window / local.visibility_timeout)))

  sqs_managed_sse = var.kms_key_arn == null ? true : null # with a key it must not be set, not even to false

  four_days     = 345600  # seconds
  fourteen_days = 1209600 # seconds, the most that SQS keeps a message
}

resource "aws_sqs_queue" "stats" {
  name                       = "${var.name}-stats"
  message_retention_seconds  = local.four_days
  visibility_timeout_seconds = local.visibility_timeout
  sqs_managed_sse_enabled    = local.sqs_managed_sse
  kms_master_key_id          = var.kms_key_arn # never the AWS-managed key: S3 couldn't send
  tags                       = var.tags

  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.dead_letter.arn
    maxReceiveCount     = local.max_receive_count
  })
}

resource "aws_sqs_queue" "dead_letter" {
  name                      = "${var.name}-dead-letter"
  message_retention_seconds = local.fourteen_days # counted from the first send, not from the move
  sqs_managed_sse_enabled   = local.sqs_managed_sse
  kms_master_key_id         = var.kms_key_arn
  tags                      = var.tags
}

resource "aws_sqs_queue" "rejected" {
  name                      = "${var.name}-rejected"
  message_retention_seconds = local.fourteen_days
  sqs_managed_sse_enabled   = local.sqs_managed_sse
  kms_master_key_id         = var.kms_key_arn
  tags                      = var.tags
}

# A resource of its own, because otherwise the two queues would refer to each other.
resource "aws_sqs_queue_redrive_allow_policy" "dead_letter" {
  queue_url = aws_sqs_queue.dead_letter.url

  redrive_allow_policy = jsonencode({
    redrivePermission = "byQueue"
    sourceQueueArns   = [aws_sqs_queue.stats.arn]
  })
}

resource "aws_sqs_queue_policy" "stats" {
  queue_url = aws_sqs_queue.stats.url
  policy    = data.aws_iam_policy_document.stats_queue.json
}

resource "aws_sqs_queue_policy" "dead_letter" {
  queue_url = aws_sqs_queue.dead_letter.url
  policy    = data.aws_iam_policy_document.dead_letter_queue.json
}

resource "aws_sqs_queue_policy" "rejected" {
  queue_url = aws_sqs_queue.rejected.url
  policy    = data.aws_iam_policy_document.tls_only["rejected"].json
}

# ---------------------------------------------------------------------------------------
# Submitter: files to Datadog
# ---------------------------------------------------------------------------------------

locals {
  metric_submit_zip  = "${local.zip_folder}/ddg_metric_submit.zip"
  metric_submit_name = "${var.name}-metric-submit"

  # What the submitter needs to know about jobs and metrics.
  silent_after_hours = { for name, job in var.jobs : name => tonumber(job.silent_after_hours) if try(job.silent_after_hours, null) != null }
  watched            = concat(keys(local.silent_after_hours), local.mock_datasource_count == 1 ? [local.scheduled_job] : [])
  jobs = { for name in setunion(keys(var.jobs), local.watched) : name => merge(
    try(var.jobs[name].mapping, null) == null ? {} : { mapping = tostring(var.jobs[name].mapping) },
    contains(local.watched, name) ? { watched = true } : {},
  ) if contains(local.watched, name) || try(var.jobs[name].mapping, null) != null }
  counts = { for name, metric in var.metrics : name => {
    for attribute, value in { type = metric.type, interval = try(tonumber(metric.interval), null) } : attribute => value if value != null
  } if try(metric.type, null) == "count" }

  # Whether a key is given is no secret. The key itself stays sensitive.
  api_key_given = nonsensitive(var.ddg_api_key != null)
  app_key_given = nonsensitive(var.ddg_app_key != null)
  secret_given  = var.ddg_api_key_secret_arn != null

  environment = merge(
    {
      DATADOG_HOST       = "https://api.${var.ddg_site}"
      STATS_PREFIX       = var.stats_prefix
      BUCKETS            = jsonencode({ for name, bucket in local.buckets : name => bucket.prefix })
      REJECTED_QUEUE_URL = aws_sqs_queue.rejected.url
      CONSTANT_TAGS      = join(",", var.constant_tags)
      MAX_AGE_SECONDS    = tostring(var.max_age_seconds)
    },
    local.api_key_given ? { DATADOG_API_KEY = var.ddg_api_key } : {},
    local.app_key_given ? { DATADOG_APP_KEY = var.ddg_app_key } : {},
    local.secret_given ? { DATADOG_API_KEY_SECRET_ARN = var.ddg_api_key_secret_arn } : {},
    length(local.jobs) == 0 ? {} : { JOBS = base64gzip(jsonencode(local.jobs)) },
    length(local.counts) == 0 ? {} : { METRICS = base64gzip(jsonencode(local.counts)) },
    var.metric_prefix == "" ? {} : { METRIC_PREFIX = var.metric_prefix },
    var.log_files ? {} : { LOG_FILES = "false" },
  )

  # Lambda measures the environment as JSON. length() counts characters, but of base64 that is 4 for 3
  # bytes. The queue's URL is predicted, because the first plan doesn't know it.
  known_environment = merge(local.environment, { REJECTED_QUEUE_URL = "https://sqs.${local.region}.${data.aws_partition.current.dns_suffix}/${local.account}/${aws_sqs_queue.rejected.name}" })
  environment_bytes = length(base64encode(jsonencode(local.known_environment))) * 3 / 4
  largest_settings  = join(", ", [for name in ["JOBS", "METRICS", "BUCKETS", "CONSTANT_TAGS"] : "${name} ${length(lookup(local.environment, name, ""))}"])
}

resource "aws_cloudwatch_log_group" "metric_submit" {
  name              = "/aws/lambda/${local.metric_submit_name}"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.kms_key_arn
  tags              = var.tags
}

resource "aws_iam_role" "metric_submit" {
  name                 = "${local.metric_submit_name}-${local.region}" # roles are global: the region tells them apart
  assume_role_policy   = data.aws_iam_policy_document.lambda_assume.json
  path                 = var.iam_role_path
  permissions_boundary = var.permissions_boundary_arn
  tags                 = var.tags
}

resource "aws_iam_role_policy" "metric_submit" {
  name   = local.metric_submit_name
  role   = aws_iam_role.metric_submit.name
  policy = data.aws_iam_policy_document.metric_submit.json
}

resource "aws_lambda_function" "metric_submit" {
  function_name    = local.metric_submit_name
  description      = "Posts the metrics of new stats files to Datadog."
  role             = aws_iam_role.metric_submit.arn
  runtime          = "python3.13"
  architectures    = var.architectures
  handler          = "ddg_metric_submit.lambda_handler"
  filename         = local.metric_submit_zip
  source_code_hash = fileexists(local.metric_submit_zip) ? filebase64sha256(local.metric_submit_zip) : null
  memory_size      = var.memory_size
  timeout          = local.submit_timeout
  tags             = var.tags

  environment {
    variables = local.environment
  }

  dynamic "vpc_config" {
    for_each = local.in_vpc

    content {
      subnet_ids         = var.subnet_ids
      security_group_ids = var.security_group_ids
    }
  }

  logging_config {
    log_format            = "JSON"
    application_log_level = "INFO" # above it Lambda would drop the summaries that the metrics are made of
    system_log_level      = "INFO"
    log_group             = aws_cloudwatch_log_group.metric_submit.name
  }

  # Not in the variables' validations: those also run on destroy, which needs no key.
  lifecycle {
    precondition {
      condition     = local.secret_given ? !local.api_key_given && !local.app_key_given : local.api_key_given
      error_message = "Give ddg_api_key (export TF_VAR_ddg_api_key=..., or apply -var 'ddg_api_key=...') or ddg_api_key_secret_arn, and not both."
    }

    precondition {
      condition     = fileexists(local.metric_submit_zip)
      error_message = "${local.metric_submit_zip} is missing: run ./zipper.sh, then apply again."
    }

    precondition {
      condition     = local.environment_bytes <= 4096
      error_message = "The submitter's environment is larger than the 4,096 bytes that Lambda takes. Its largest parts in bytes: ${local.largest_settings}. Shorten or remove some of jobs, metrics, buckets and constant_tags, or move some jobs to a second stack."
    }
  }

  depends_on = [aws_iam_role_policy.metric_submit] # the role must be allowed to read the queue and the secret first
}

resource "aws_lambda_event_source_mapping" "metric_submit" {
  event_source_arn                   = aws_sqs_queue.stats.arn
  function_name                      = aws_lambda_function.metric_submit.arn
  enabled                            = true # so that an apply ends a pause
  batch_size                         = var.batch_size
  maximum_batching_window_in_seconds = var.batch_window
  function_response_types            = ["ReportBatchItemFailures"]
  tags                               = var.tags

  scaling_config {
    maximum_concurrency = var.maximum_concurrency # reserved concurrency would take from the account's 10
  }
}
